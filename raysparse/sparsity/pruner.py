"""What chooses the groups of a masked head while it trains."""

from typing import Protocol

import torch
from torch import Tensor, nn

from raysparse.models.groups import groups_of
from raysparse.sparsity.layout import Layout, Masks


class Pruner(Protocol):
    """Leaves groups of a masked head out, step by step, until its budget is met. Every rank, without talking.

    The gradients that it reads are averaged over the ranks, so that masks are the same on all of them.
    """

    layout: Layout
    macs: int
    """What the head may take for one row when the pruner is done."""

    def step(self, head: nn.Module, progress: float) -> bool:
        """Look at the masks' gradients after a training step, and set the masks; `progress` of the pruning, (0, 1].

        At 1 the budget is met, and the masks stand from then on.

        Returns whether groups were left out for good: then the head may be narrowed to the others.
        """
        ...

    def narrow(self, masks: Masks) -> None:
        """Forget the groups that `masks` leave out, after the head was made without them."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved, by name; live, so that writing into them restores the pruner."""
        ...


def mask_open(head: nn.Module) -> None:
    """Put a head into the masked state with all groups that it has kept."""
    write_masks(head, {name: torch.ones(place.num_groups) for name, place in groups_of(head).items()})


def read_masks(head: nn.Module) -> Masks:
    """The masks of a masked head; boolean copies on the CPU."""
    masks: Masks = {}
    for name, place in groups_of(head).items():
        assert place.mask is not None
        masks[name] = (place.mask.detach() > 0).cpu()
    return masks


def write_masks(head: nn.Module, masks: Masks) -> None:
    """Mask a head, in place where it is masked already."""
    for name, place in groups_of(head).items():
        place.set_mask(masks[name].float())
