"""Gates that are drawn: every group is open with a probability that is learned, at a price on the expected cost.

The hard concrete distribution of Louizos, Welling and Kingma 2018 (arXiv 1712.01312, section 2.2), with a multiplier on
a budget instead of a fixed weight on the number of open gates.
"""

import math
import zlib
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.models.groups import groups_of, scale_outgoing
from raysparse.sparsity.criteria import Scores, mask_gradients
from raysparse.sparsity.layout import Layout, Masks, Widths
from raysparse.sparsity.projection import project_both_ways, project_within_places
from raysparse.sparsity.pruner import write_masks
from raysparse.sparsity.schedule import cubic_budget, masks_stand

TEMPERATURE = 2.0 / 3.0
LEAST, MOST = -0.1, 1.1
"""Between which a gate is stretched before it is cut to [0, 1]: so it is exactly 0, or 1, with some probability."""
_SHIFT = TEMPERATURE * math.log(-LEAST / MOST)
FIRST_LOGIT = 1.0
"""Open with a probability of 0.93."""
_REACH = 5.0
"""Largest logit: beyond it a gate hardly ever moves again."""
_LEAST_SCALE = 0.1
"""Of a group that the budget takes in although its gate was shut: it starts small, and can learn."""


class HardConcreteConfig(Config):
    """Learns for every group how probably it is open, with a price on the expected multiply-adds.

    All rates are those of the whole pruning, so that it may have any number of steps.
    """

    kind: Literal["hard_concrete"] = "hard_concrete"
    gate_rate: float = Field(default=20.0, gt=0.0)
    """How far a logit moves where the loss pulls as it does on average, always one way."""
    price_rate: float = Field(default=200.0, gt=0.0)
    """How far the price rises where the head takes one dense head more than it may all the time."""
    memory: float = Field(default=0.3, gt=0.0)
    """How far back the mean size of the gradients looks, as a share of the pruning."""


class HardConcretePruner:
    """Descent on the gates' logits, ascent on the price of the expected cost. Every rank.

    Each step draws every gate from the seed and the number of the step, the same on all ranks; the loss's gradient by
    the gate goes back into the logit (reparameterised). The cost is that of the expected widths, to a group. At the end
    of the pruning the groups are projected onto the budget by their probabilities, and what a kept gate was at its mean
    is put into the weights that read its group.
    """

    def __init__(self, config: HardConcreteConfig, layout: Layout, budget: float, num_steps: int, seed: int) -> None:
        """Prune within `num_steps` steps."""
        self.layout = layout
        self.macs = layout.budget_macs(budget)
        self._seed = seed
        self._gate_rate = config.gate_rate / num_steps
        self._price_rate = config.price_rate / num_steps
        self._news = min(1.0, 1.0 / (config.memory * num_steps))
        self._logits: Scores = {place: torch.full((size,), FIRST_LOGIT) for place, size in layout.sizes.items()}
        # Open to begin with: such a gate is cut at 1 and has no gradient.
        self._drawn: Scores = {place: torch.ones(size) for place, size in layout.sizes.items()}
        self._scale = torch.zeros(1)
        self._price = torch.zeros(1)
        self._num_draws = torch.zeros(1)
        self._projected = torch.zeros(1)

    @property
    def raw_share(self) -> float:
        """Share of the dense head's multiply-adds that the gates take on average, before any projection."""
        return self.layout.macs(self._expected_widths()) / self.layout.dense_macs

    def step(self, head: nn.Module, progress: float) -> bool:
        """Move logits and price and draw gates anew; project when it is time, and leave the masks alone thereafter."""
        if self._projected.item():
            return False
        self._move_logits(mask_gradients(head))
        excess = self.raw_share - cubic_budget(self.macs / self.layout.dense_macs, progress)
        self._price.add_(self._price_rate * excess).clamp_(min=0.0)
        if masks_stand(progress):
            self._project(head)
            return True
        gates = self._draw()
        for name, place in groups_of(head).items():
            place.set_mask(gates[name])
        return False

    def narrow(self, masks: Masks) -> None:
        """Nothing: by then the masks are projected, and no gate moves any more."""

    def tensors(self) -> dict[str, Tensor]:
        """Logits, what was drawn last, and the price."""
        logits = {f"logit/{place}": logit for place, logit in self._logits.items()}
        drawn = {f"drawn/{place}": drawn for place, drawn in self._drawn.items()}
        numbers = {
            "scale": self._scale,
            "price": self._price,
            "num_draws": self._num_draws,
            "projected": self._projected,
        }
        return {**logits, **drawn, **numbers}

    def _move_logits(self, gradients: Scores) -> None:
        """Down the loss, over the running mean of the gradients' sizes, and down the price of what they cost.

        All groups' costs add up to about twice the dense head's, so that per group and place they are about 2.
        """
        pulls = {place: gradient * _slope(self._drawn[place]) for place, gradient in gradients.items()}
        mean = torch.cat([pull.abs() for pull in pulls.values()]).mean()
        self._scale.copy_(self._scale.lerp(mean, self._news) if self._scale.item() else mean)
        per_place = sum(self.layout.sizes.values()) / len(self.layout.sizes) / self.layout.dense_macs
        for place, macs in self.layout.macs_per_group(self._expected_widths()).items():
            chance = open_chance(self._logits[place])
            cost = self._price * macs * per_place * chance * (1.0 - chance)
            pull = pulls[place] / self._scale.clamp(min=1e-30)
            self._logits[place].sub_(self._gate_rate * (pull + cost)).clamp_(-_REACH, _REACH)

    def _draw(self) -> Scores:
        number = int(self._num_draws.item())
        self._num_draws.add_(1.0)
        generator = torch.Generator().manual_seed(zlib.crc32(repr((self._seed, number)).encode()))
        gates: Scores = {}
        for place, logit in self._logits.items():
            uniform = torch.rand(len(logit), generator=generator).clamp(1e-6, 1.0 - 1e-6)
            self._drawn[place].copy_(((uniform.logit() + logit) / TEMPERATURE).sigmoid())
            gates[place] = _stretched(self._drawn[place])
        return gates

    def _project(self, head: nn.Module) -> None:
        scores = {place: open_chance(logit) for place, logit in self._logits.items()}
        everything = {place: torch.ones(len(logit), dtype=torch.bool) for place, logit in self._logits.items()}
        masks = project_within_places(scores, everything, self._expected_widths())
        masks = project_both_ways(scores, self.layout, masks, self.macs)
        for place, logit in self._logits.items():
            scale_outgoing(head, place, _stretched(logit.sigmoid()).clamp(min=_LEAST_SCALE))
        write_masks(head, masks)
        self._projected.fill_(1.0)

    def _expected_widths(self) -> Widths:
        sums = {place: round(open_chance(logit).sum().item()) for place, logit in self._logits.items()}
        return {place: max(width, self.layout.floors[place]) for place, width in sums.items()}


def open_chance(logit: Tensor) -> Tensor:
    """Probability that a gate is not 0 (arXiv 1712.01312, eq. 12)."""
    return (logit - _SHIFT).sigmoid()


def _stretched(drawn: Tensor) -> Tensor:
    return (drawn * (MOST - LEAST) + LEAST).clamp(0.0, 1.0)


def _slope(drawn: Tensor) -> Tensor:
    """Of the gate over its logit, where it was drawn; 0 where it is cut."""
    gate = _stretched(drawn)
    return (MOST - LEAST) * drawn * (1.0 - drawn) / TEMPERATURE * ((gate > 0.0) & (gate < 1.0))
