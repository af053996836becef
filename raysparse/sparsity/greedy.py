"""The greedy pruner: in rounds, the groups that matter least for what they cost are left out."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.sparsity.compensation import ColumnStatistics, Training, compensate, observe, steps_between
from raysparse.sparsity.criteria import Scores, magnitude, mask_gradients, mix
from raysparse.sparsity.layout import Layout, Masks
from raysparse.sparsity.projection import (
    erk_widths,
    project_greedily,
    project_within_places,
    uniform_widths,
    widths_by_hand,
)
from raysparse.sparsity.pruner import read_masks, write_masks
from raysparse.sparsity.schedule import cubic_budget


class GreedyConfig(Config):
    """Prunes in rounds by a mixed criterion."""

    kind: Literal["greedy"] = "greedy"
    criterion: Literal["taylor", "movement", "random"] = "taylor"
    """What is mixed with magnitude: |gradient of the mask| (taylor), its running signed mean (movement: Sanh et al.
    2020), or a random score as the null."""
    mix: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of `criterion` in the score; the rest is magnitude, which only helps where nothing is compensated."""
    allocation: Literal["global", "uniform", "erk", "by_hand"] = "global"
    """How the budget is spread over the layers: one ranking per multiply-add, one ratio, the Erdos-Renyi rule, or the
    ratios of `shares`."""
    shares: dict[str, float] = {}
    """By hand: what a layer (or another place of groups) keeps relative to the others, 1 where it is not named."""
    rounds: int = Field(default=20, ge=1)
    """Rounds in which groups are left out."""
    compensate: bool = True
    """Whether the groups that stay take over, by least squares, what those left out told the next layer."""
    memory: float = Field(default=0.4, gt=0.0)
    """How far back the criterion looks, as a share of the steps in which the head is pruned."""

    @model_validator(mode="after")
    def _shares_belong_to_a_hand(self) -> "GreedyConfig":
        if self.shares and self.allocation != "by_hand":
            raise ValueError(f"shares only with allocation by_hand; found {self.allocation}")
        if any(not share > 0.0 for share in self.shares.values()):
            raise ValueError(f"shares above 0; found {self.shares}")
        return self


class GreedyPruner:
    """Ranks all groups of a head per multiply-add and leaves the least out. Every rank."""

    def __init__(
        self,
        config: GreedyConfig,
        layout: Layout,
        budget: float,
        num_steps: int,
        seed: int,
        training: Training | None = None,
    ) -> None:
        """Prune within `num_steps` steps; without `training`, nothing is compensated."""
        self.layout = layout
        self.macs = layout.budget_macs(budget)
        self._config = config
        self._decay = 1.0 - min(1.0, 1.0 / (config.memory * num_steps))
        self._saliency: Scores = {place: torch.zeros(size) for place, size in layout.sizes.items()}
        self._rounds_done = torch.zeros(1)
        self._training = training if config.compensate else None
        self._steps_done = torch.zeros(1)
        self._columns: dict[str, ColumnStatistics] = {}
        self._steps_between = 1
        if self._training is not None:
            widths = {place: layout.num_columns(place) for place in layout.sizes}
            remembered = max(1.0, config.memory * num_steps) * self._training.rows
            self._steps_between = steps_between(remembered, max(widths.values()))
            decay = self._decay**self._steps_between
            self._columns = {place: ColumnStatistics(width, decay) for place, width in widths.items()}
            observe(self._training, self._columns, self._shows_columns)
        self._random = {
            place: torch.rand(size, generator=torch.Generator().manual_seed(seed + index))
            for index, (place, size) in enumerate(layout.sizes.items())
        }

    def step(self, head: nn.Module, progress: float) -> bool:
        """Add the step's gradients; leave groups out, which do not come back, where a round is due."""
        self._observe(mask_gradients(head))
        self._steps_done.add_(1.0)
        due = min(self._config.rounds, int(progress * self._config.rounds + 1e-9))
        if due <= int(self._rounds_done):
            return False
        self._rounds_done.fill_(due)
        share = cubic_budget(self.macs / self.layout.dense_macs, due / self._config.rounds)
        macs = max(self.macs, int(share * self.layout.dense_macs))
        before = read_masks(head)
        masks = self._project(self.scores(head), before, macs)
        if self._columns:
            compensate(head, before, masks, self._columns)
        write_masks(head, masks)
        if due == self._config.rounds and self._training is not None:
            observe(self._training, {})
        return True

    def narrow(self, masks: Masks) -> None:
        """Forget the groups that `masks` leave out, and look at the head that has the others only."""
        self._saliency = {place: score[masks[place]] for place, score in self._saliency.items()}
        self._random = {place: score[masks[place]] for place, score in self._random.items()}
        for place, noted in self._columns.items():
            block = self.layout.num_columns(place) // self.layout.sizes[place]
            noted.narrow(masks[place].repeat_interleave(block))
        if self._training is not None:
            observe(self._training, self._columns, self._shows_columns)

    def scores(self, head: nn.Module) -> Scores:
        """What each group matters now."""
        if self._config.criterion == "random":
            return self._random
        # The running mean starts at zero, which all groups share: only their order counts. Movement has a sign, and
        # cut off at zero, half the groups would tie.
        lowest = min([0.0, *(score.min().item() for score in self._saliency.values() if len(score))])
        saliency = {place: score - lowest for place, score in self._saliency.items()}
        return mix(saliency, magnitude(head), self._config.mix)

    def tensors(self) -> dict[str, Tensor]:
        """Criterion and rounds."""
        saliency = {f"saliency/{place}": score for place, score in self._saliency.items()}
        columns = {f"columns/{place}": noted.moments for place, noted in self._columns.items()}
        return {**saliency, **columns, "rounds_done": self._rounds_done, "steps_done": self._steps_done}

    def _shows_columns(self) -> bool:
        """Whether the step that comes is one of those whose columns are looked at; the first one is."""
        return int(self._steps_done) % self._steps_between == 0

    def _observe(self, gradients: Scores) -> None:
        for place, gradient in gradients.items():
            # A group that should grow has a negative gradient of its mask.
            seen = gradient.abs() if self._config.criterion == "taylor" else -gradient
            self._saliency[place].lerp_(seen, 1.0 - self._decay)

    def _project(self, scores: Scores, masks: Masks, macs: int) -> Masks:
        match self._config.allocation:
            case "global":
                return project_greedily(scores, self.layout, masks, macs)
            case "uniform":
                widths = uniform_widths(self.layout, macs)
            case "erk":
                widths = erk_widths(self.layout, macs)
            case "by_hand":
                widths = widths_by_hand(self.layout, macs, self._config.shares)
        return project_within_places(scores, masks, widths)
