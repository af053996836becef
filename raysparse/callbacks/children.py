"""Making children of the trained arm: forked from it, masked or small, their optimizer's state with them."""

import copy
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.sasrec.encoder import SASRec
from raysparse.sharding.child import Child, OwnTables, SequenceChild
from raysparse.sharding.weights import ShardedWeights
from raysparse.sparsity.compaction import compact, compact_tensor, kept_indices
from raysparse.sparsity.compensation import Training
from raysparse.sparsity.layout import Layout, Masks, layout_of, widths_of
from raysparse.sparsity.pruner import mask_open
from raysparse.train.arm import Arm
from raysparse.train.state import TrainState

TablesOfChild = Literal["shared", "frozen", "copied"]
"""Which tables a child reads: the parent's, as they learn; a copy that stays as it was when the child was forked; a
copy that learns with the child."""


class WidthsConfig(Config):
    """What a layer may keep."""

    least_groups: int = Field(default=8, ge=1)
    """Groups (neurons, pairs, fields) at least, or all of them where it has fewer."""
    least_share: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of its groups at least; the larger of both holds."""
    multiple_of: int = Field(default=8, ge=1)
    """Columns in whole multiples of this, or all, in layers of at least four times as many: a matrix of 117 by 317
    takes as long as one of 120 by 320, and half as long again for thousands of rows."""

    def layout(self, head: nn.Module, macs: int) -> Layout:
        """Read a dense head's layout; `macs` is what the whole head takes."""
        return layout_of(head, macs, self.least_groups, self.least_share, self.multiple_of)


@dataclass(frozen=True)
class Parent:
    """The dense model that children are forked from."""

    model: ShardedWeights
    layout: Layout


def parent_of(state: TrainState, widths: WidthsConfig) -> Parent:
    """The trained arm with the layout of its head. Every rank."""
    arm = state.trained
    assert isinstance(arm.model, ShardedWeights)
    return Parent(arm.model, widths.layout(arm.model.head, arm.macs))


def fork_masked(
    state: TrainState, parent: Parent, name: str, *, inherit_optimizer: bool, tables: TablesOfChild = "shared"
) -> Arm:
    """A full-size child with the parent's weights and all its groups kept; not yet an arm of the run. Every rank."""
    head = copy.deepcopy(parent.model.head)
    mask_open(head)
    own = copy_tables(state, parent, tables)
    arm = state.make_arm.child(name, parent.model, head, parent.layout.dense_macs, own)
    if inherit_optimizer:
        moments = parent.model.trained_head.moments()
        child_of(arm).trained_head.set_moments(_copied(moments))
    return arm


def copy_tables(state: TrainState, parent: Parent, tables: TablesOfChild) -> OwnTables | None:
    """Tables for a child alone as the parent's are now, or None where it shares them. Every rank."""
    if tables == "shared":
        return None
    model = state.make_arm("tables", trains=False).model
    assert isinstance(model, ShardedWeights)
    model.copy_from(parent.model)
    return OwnTables(model, learn=tables == "copied")


def blank_child(
    state: TrainState,
    parent: Parent,
    name: str,
    kept: Masks,
    tables: TablesOfChild = "shared",
    *,
    masked: bool = False,
) -> Arm:
    """A child of the groups that are kept, whose weights are still to be restored or drawn. Every rank."""
    head = compact(parent.model.head, kept)
    if masked:
        mask_open(head)
    own = copy_tables(state, parent, tables)
    return state.make_arm.child(name, parent.model, head, parent.layout.macs(widths_of(kept)), own)


def take_out(state: TrainState, parent: Parent, arm: Arm, masks: Masks, *, masked: bool = False) -> None:
    """Make a child anew without the groups that `masks` leave out, its optimizer's state with it. Every rank."""
    old = child_of(arm)
    kept = kept_indices(old.head, masks)
    moments = {
        name: {
            key: compact_tensor(value, kept[name]) if value.dim() and name in kept else value.clone()
            for key, value in of_parameter.items()
        }
        for name, of_parameter in old.trained_head.moments().items()
    }
    arm.macs = parent.layout.macs(widths_of(masks))
    head = compact(old.head, masks)
    if masked:
        mask_open(head)
    arm.model = state.make_arm.child(arm.name, parent.model, head, arm.macs, old.own).model
    child_of(arm).trained_head.set_moments(moments)


def training_of(state: TrainState, arm: Arm) -> Training:
    """A child as its pruner sees it. Every rank."""

    def weights(columns: Tensor) -> Tensor:
        if isinstance(arm.model, SequenceChild):
            return columns.new_ones(len(columns))  # items, none of which is padding
        assert state.batch is not None
        return state.batch.weights

    def add_up(tensor: Tensor) -> None:
        if dist.get_world_size() > 1:
            dist.all_reduce(tensor)

    return Training(lambda: child_of(arm).head, weights, add_up, state.stream.batch_size)


def reset_weights(head: nn.Module, seed: int) -> None:
    """Draw all weights of a head anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(head, SASRec):
            head.draw()
            return
        for module in head.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()


def child_of(arm: Arm) -> Child:
    """The child that an arm is."""
    return cast(Child, arm.model)


def dump_masks(masks: Masks) -> dict[str, list[int]]:
    """Masks as JSON: the indices of the groups that are kept."""
    return {place: mask.nonzero().squeeze(1).tolist() for place, mask in masks.items()}


def parse_masks(saved: dict[str, Any], layout: Layout) -> Masks:
    """Masks from what `dump_masks` gave."""
    masks: Masks = {}
    for place, size in layout.sizes.items():
        masks[place] = torch.zeros(size, dtype=torch.bool)
        masks[place][torch.tensor(saved[place], dtype=torch.long)] = True
    return masks


def facts_of(layout: Layout, masks: Masks) -> dict[str, Any]:
    """What the history says of a pruned arm: groups kept per place, and how many there are in the dense head."""
    return {"widths": widths_of(masks), "groups": dict(layout.sizes)}


def churn_between(first: Masks, second: Masks) -> float:
    """Share of all groups that one of two masks keeps and the other does not."""
    changed = sum(int((first[place] != second[place]).sum()) for place in first)
    return changed / sum(len(mask) for mask in first.values())


def _copied(moments: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {name: {key: value.clone() for key, value in found.items()} for name, found in moments.items()}
