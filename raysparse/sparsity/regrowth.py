"""Regrowth: a masked head's groups are exchanged in place, some dropped and others grown, without a dense parent."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import groups_of, links_of
from raysparse.sparsity.compaction import kept_indices
from raysparse.sparsity.criteria import Scores, magnitude, mask_gradients, mix
from raysparse.sparsity.layout import Layout, Masks, Widths, widths_of
from raysparse.sparsity.projection import drop_worst, refill
from raysparse.sparsity.pruner import read_masks, write_masks


class RegrowthConfig(Config):
    """Prune once, then exchange groups in place every few steps (RigL, arXiv 1911.11134, for whole groups)."""

    kind: Literal["in_place"] = "in_place"
    fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the kept groups that is exchanged each time; it does not fall, since the stream does not end."""
    every_steps: int = Field(default=100, ge=1)
    """Training steps between two exchanges."""


class Regrowth:
    """Exchanges groups of a masked head that meets its budget. Every rank, without talking.

    What goes: the kept groups with the least Taylor score mixed with magnitude, per multiply-add. What comes: the
    groups left out with the largest gradient of their mask, per multiply-add, summed since the last exchange. A new
    group's outgoing weights are zero, so that the head computes what it did; were they so while it is left out,
    that gradient would be zero, too. Therefore a group keeps its old weights until it is grown, and the gradient
    says what the old group would do to the loss now: exact for a block of inputs, which stay what they were; for
    neurons, whose incoming weights are drawn anew, it says in which layer more of them are wanted.
    """

    def __init__(self, config: RegrowthConfig, layout: Layout, macs: int, seed: int) -> None:
        """Keep a head within `macs` multiply-adds."""
        self._config = config
        self.layout = layout
        self._macs = macs
        self._seed = seed
        self._saliency: Scores = {place: torch.zeros(size) for place, size in layout.sizes.items()}
        self._steps = torch.zeros(1)
        self._exchanges = torch.zeros(1)

    def step(self, head: nn.Module) -> Masks | None:
        """Look at the masks' gradients after a training step; where an exchange is due, return the groups grown.

        Their moments in the optimizer have to be reset: `reset_moments`.
        """
        for place, gradient in mask_gradients(head).items():
            self._saliency[place] += gradient.abs()
        self._steps += 1
        if int(self._steps) < self._config.every_steps:
            return None
        before = read_masks(head)
        after = self._exchange(head, before)
        grown = {place: after[place] & ~mask for place, mask in before.items()}
        write_masks(head, after)
        self._initialise(head, grown, after)
        for saliency in self._saliency.values():
            saliency.zero_()
        self._steps.zero_()
        self._exchanges += 1
        return grown

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved, by name; live."""
        saliency = {f"saliency/{place}": score for place, score in self._saliency.items()}
        return {**saliency, "steps": self._steps, "exchanges": self._exchanges}

    @staticmethod
    def reset_moments(head: nn.Module, grown: Masks, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Zero what an optimizer remembers of grown groups' weights, by parameter and name."""
        for place, mask in grown.items():
            for name, rows, columns in _weights_of(head, place, mask):
                shape = head.get_parameter(name).shape
                for moment in moments.get(name, {}).values():
                    if moment.shape == shape:
                        _fill(moment, rows, columns, 0.0)

    def _exchange(self, head: nn.Module, masks: Masks) -> Masks:
        """The masks after an exchange; what the grown groups leave free goes back to the best of the dropped."""
        scores = mix(self._saliency, magnitude(head), 0.5)
        kept = sum(widths_of(masks).values())
        target = kept - max(1, round(self._config.fraction * kept))

        def enough(widths: Widths) -> bool:
            return sum(widths.values()) <= target

        left = drop_worst(scores, self.layout, masks, enough)
        others = {place: ~mask for place, mask in masks.items()}
        grown = refill(self._saliency, self.layout, left, others, self._macs)
        return refill(scores, self.layout, grown, masks, self._macs)

    def _initialise(self, head: nn.Module, grown: Masks, masks: Masks) -> None:
        """Draw the grown groups' incoming weights as a small layer's would be; their outgoing ones become zero."""
        generator = torch.Generator().manual_seed(hash((self._seed, int(self._exchanges))) & 0x7FFFFFFF)
        kept = kept_indices(head, masks)
        links = links_of(head)
        for place, mask in grown.items():
            name = links[place].producer
            if name is not None:
                _draw_rows(head, name, mask, kept[f"{name}.weight"][1], generator)
        # Afterwards, since a neuron's way out is another one's way in.
        for place, mask in grown.items():
            for name, rows, columns in _weights_of(head, place, mask):
                if columns is not None:
                    _fill(head.get_parameter(name).detach(), rows, columns, 0.0)


def _draw_rows(
    head: nn.Module, name: str, rows: Tensor, kept_columns: Tensor | None, generator: torch.Generator
) -> None:
    """Draw rows of an `nn.Linear` as torch does for one that has the kept columns only."""
    linear = head.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    num_inputs = linear.in_features if kept_columns is None else len(kept_columns)
    bound = max(1, num_inputs) ** -0.5
    num_rows = int(rows.sum())
    parameters = [linear.weight] if linear.bias is None else [linear.weight, linear.bias]
    for parameter in parameters:
        drawn = torch.empty(num_rows, *parameter.shape[1:]).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            parameter[rows.to(parameter.device)] = drawn.to(parameter)


def _weights_of(head: nn.Module, place: str, mask: Tensor) -> list[tuple[str, Tensor | None, Tensor | None]]:
    """The parameters of a place's groups, each with the rows or the columns that are theirs."""
    link = links_of(head)[place]
    block = groups_of(head)[place].block
    consumer = head.get_submodule(link.consumer)
    assert isinstance(consumer, nn.Linear)
    columns = torch.zeros(consumer.in_features, dtype=torch.bool)
    columns[link.first_column : link.first_column + block * len(mask)] = mask.repeat_interleave(block)
    found: list[tuple[str, Tensor | None, Tensor | None]] = [(f"{link.consumer}.weight", None, columns)]
    if link.producer is not None:
        producer = head.get_submodule(link.producer)
        assert isinstance(producer, nn.Linear)
        found.append((f"{link.producer}.weight", mask, None))
        if producer.bias is not None:
            found.append((f"{link.producer}.bias", mask, None))
    return found


def _fill(tensor: Tensor, rows: Tensor | None, columns: Tensor | None, value: float) -> None:
    if rows is not None:
        tensor[rows.to(tensor.device)] = value
    if columns is not None:
        tensor[:, columns.to(tensor.device)] = value
