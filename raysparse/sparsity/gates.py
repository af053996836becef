"""Learned gates: every group has one, the budget has a price, and both move with the loss."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.sparsity.criteria import Scores, mask_gradients
from raysparse.sparsity.layout import Layout, Masks, Widths, widths_of
from raysparse.sparsity.projection import project_both_ways, project_within_places
from raysparse.sparsity.pruner import write_masks
from raysparse.sparsity.schedule import cubic_budget, masks_stand

FIRST_GATE = 0.5


class GatesConfig(Config):
    """Learns a gate for every group, with a price on multiply-adds that rises while the head takes too many.

    All rates are those of the whole pruning, so that it may have any number of steps.
    """

    kind: Literal["gates"] = "gates"
    gate_rate: float = Field(default=3.3, gt=0.0)
    """How far a gate of average saliency moves where nothing has a price; gates lie in [-1, 1]."""
    price_rate: float = Field(default=33.0, gt=0.0)
    """How far the price rises where the head takes one dense head more than it may all the time."""
    memory: float = Field(default=0.3, gt=0.0)
    """How far back the saliency looks, as a share of the pruning."""


class GatesPruner:
    """Gradient steps on gates and ascent on the price of the budget; a gate above 0 is open. Every rank.

    The gradient of a mask stands for that of its gate (straight through); its size alone counts, so that a group
    matters whichever way it moves the loss. A closed group is still computed, so that its gate may open again until,
    at the end of the pruning, the masks are projected onto the budget.
    """

    def __init__(self, config: GatesConfig, layout: Layout, budget: float, num_steps: int, seed: int) -> None:
        """Prune within `num_steps` steps; nothing is drawn, so that `seed` changes nothing."""
        self.layout = layout
        self.macs = layout.budget_macs(budget)
        self._gate_rate = config.gate_rate / num_steps
        self._price_rate = config.price_rate / num_steps
        self._news = min(1.0, 1.0 / (config.memory * num_steps))
        self._gates: Scores = {place: torch.full((size,), FIRST_GATE) for place, size in layout.sizes.items()}
        self._saliency: Scores = {place: torch.zeros(size) for place, size in layout.sizes.items()}
        self._scale = torch.zeros(1)
        self._price = torch.zeros(1)
        self._raw_share = torch.ones(1)
        self._projected = torch.zeros(1)

    @property
    def raw_share(self) -> float:
        """Share of the dense head's multiply-adds that the gates ask for, before any projection."""
        return self._raw_share.item()

    def step(self, head: nn.Module, progress: float) -> bool:
        """Move the gates and the price; project when it is time, and leave the masks alone thereafter."""
        if self._projected.item():
            return False
        self._observe(mask_gradients(head))
        self._move_gates(widths_of(self._open_gates()))
        masks = self._open_gates()
        dense = self.layout.dense_macs
        self._raw_share.fill_(self.layout.macs(widths_of(masks)) / dense)
        excess = self.raw_share - cubic_budget(self.macs / dense, progress)
        self._price.add_(self._price_rate * excess).clamp_(min=0.0)
        if masks_stand(progress):
            masks = project_both_ways(self._scores(), self.layout, masks, self.macs)
            self._projected.fill_(1.0)
        write_masks(head, masks)
        return bool(self._projected.item())

    def narrow(self, masks: Masks) -> None:
        """Nothing: by then the masks are projected, and no gate moves any more."""

    def tensors(self) -> dict[str, Tensor]:
        """Gates, what moves them, and the price."""
        gates = {f"gate/{place}": gate for place, gate in self._gates.items()}
        saliency = {f"saliency/{place}": score for place, score in self._saliency.items()}
        numbers = {
            "scale": self._scale,
            "price": self._price,
            "raw_share": self._raw_share,
            "projected": self._projected,
        }
        return {**gates, **saliency, **numbers}

    def _observe(self, gradients: Scores) -> None:
        """Add the sizes of the masks' gradients, over their running mean: the loss's scale does not matter."""
        mean = torch.cat([gradient.abs() for gradient in gradients.values()]).mean()
        self._scale.copy_(self._scale.lerp(mean, self._news) if self._scale.item() else mean)
        for place, gradient in gradients.items():
            self._saliency[place].lerp_(gradient.abs() / self._scale.clamp(min=1e-30), self._news)

    def _move_gates(self, widths: Widths) -> None:
        """Open what matters, close what costs.

        All groups' costs add up to about twice the dense head's, so that per group and place they are about 2.
        """
        per_place = sum(self.layout.sizes.values()) / len(self.layout.sizes) / self.layout.dense_macs
        for place, macs in self.layout.macs_per_group(widths).items():
            cost = self._price * macs * per_place
            self._gates[place].add_(self._gate_rate * (self._saliency[place] - cost)).clamp_(-1.0, 1.0)

    def _open_gates(self) -> Masks:
        """The groups whose gates are open, and the best others where a place would fall below its floor."""
        masks: Masks = {}
        scores = self._scores()
        for place, gate in self._gates.items():
            opened = gate > 0
            if int(opened.sum()) < self.layout.floors[place]:
                everything = {place: torch.ones_like(opened)}
                opened = project_within_places(scores, everything, self.layout.floors)[place]
            masks[place] = opened
        return masks

    def _scores(self) -> Scores:
        """How far each gate is from closed; gates at a bound are told apart by their saliency."""
        highest = max([1e-30, *(score.max().item() for score in self._saliency.values() if len(score))])
        return {place: gate + 1.0 + 1e-3 * self._saliency[place] / highest for place, gate in self._gates.items()}
