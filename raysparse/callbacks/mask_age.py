"""The mask-age matrix: what a mask is worth that was found some days ago, the weights being today's.

At fixed dates, children are forked from the trained arm with masks of different ages, recover for one day with their
mask fixed, and predict the next. Only the pattern differs between them, so that a gap that grows with the age is the
pattern's own, whatever the weights have learned.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field

from raysparse.callbacks.children import (
    FloorConfig,
    blank_child,
    child_of,
    compact_child,
    dump_masks,
    facts_of,
    fork_masked,
    parent_of,
    parse_masks,
    training_of,
)
from raysparse.config import Config
from raysparse.sparsity.build import PrunerConfig, build_pruner
from raysparse.sparsity.greedy import GreedyConfig
from raysparse.sparsity.layout import Masks
from raysparse.sparsity.pruner import Pruner, read_masks
from raysparse.train.arm import Arm
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState


class MaskAgeConfig(Config):
    """Measures what masks of different ages are worth; its arms stand in the history as `<name>.age_<days>`."""

    kind: Literal["mask_age"] = "mask_age"
    name: str = Field(default="mask_age", pattern=r"^[a-z0-9_]+$")
    """Beginning of the arms' names."""
    budget: float = Field(gt=0.0, lt=1.0)
    """Share of the dense head's multiply-adds that a mask may keep."""
    first_day: int = Field(default=15, ge=0)
    """Day on which the first mask is found."""
    every_days: int = Field(default=5, ge=3)
    """Days between two masks."""
    num_ages: int = Field(default=5, ge=1)
    """Masks that are compared on each date: of age 0, `every_days`, twice `every_days`, ..."""
    pruner: PrunerConfig = GreedyConfig()
    """What finds the masks."""
    floor: FloorConfig = FloorConfig()
    """What every layer keeps."""


@dataclass
class _Search:
    """A child that only serves to find a mask."""

    arm: Arm
    pruner: Pruner
    total_steps: int
    steps: int = 0


class MaskAge(Callback):
    """Finds a mask every so many days; the day after, has masks of all ages recover. Every rank."""

    def __init__(self, config: MaskAgeConfig, seed: int) -> None:
        self.state_key = f"mask_age/{config.name}"
        self._config = config
        self._seed = seed
        self._found: list[Masks] = []
        self._search: _Search | None = None
        self._recovering: list[tuple[Arm, Masks]] = []

    def scored(self, state: TrainState) -> None:
        """Begin a search, or a recovery; end the recovery that has just been scored."""
        for arm, _ in self._recovering:
            state.arms.remove(arm)
        self._recovering = []
        days_since = state.position.day_index - self._config.first_day
        if days_since >= 0 and days_since % self._config.every_days == 0:
            self._begin_search(state, 0)
        elif days_since % self._config.every_days == 1 and len(self._found) >= self._config.num_ages:
            self._begin_recovery(state)

    def _begin_search(self, state: TrainState, steps: int) -> None:
        config = self._config
        parent = parent_of(state, config.floor)
        arm = fork_masked(state, parent, f"{config.name}.search", inherit_optimizer=True)
        arm.facts = {"shadow": True}
        total_steps = state.stream.num_batches(state.day)
        seed = self._seed + state.position.day_index
        pruner = build_pruner(config.pruner, parent.layout, config.budget, total_steps, seed, training_of(state, arm))
        child_of(arm).extras = pruner.tensors()
        self._search = _Search(arm, pruner, total_steps, steps)
        state.arms.append(arm)

    def _begin_recovery(self, state: TrainState) -> None:
        newest_first = self._found[: -self._config.num_ages - 1 : -1]
        for number, masks in enumerate(newest_first):
            self._recover(state, f"age_{number * self._config.every_days:02d}", masks)
        self._recover(state, "random", self._random(newest_first[0], state.position.day_index))

    def _recover(self, state: TrainState, name: str, masks: Masks) -> None:
        parent = parent_of(state, self._config.floor)
        arm = fork_masked(state, parent, f"{self._config.name}.{name}", inherit_optimizer=True)
        self._add_recovering(state, compact_child(state, parent, arm, masks), masks)

    def _add_recovering(self, state: TrainState, arm: Arm, masks: Masks) -> None:
        layout = parent_of(state, self._config.floor).layout
        arm.facts = {"shadow": True, **facts_of(layout, masks)}
        self._recovering.append((arm, masks))
        state.arms.append(arm)

    def _random(self, like: Masks, day_index: int) -> Masks:
        """Masks of the same widths, drawn at random."""
        generator = torch.Generator().manual_seed(self._seed + day_index)
        return {place: mask[torch.randperm(len(mask), generator=generator)] for place, mask in like.items()}

    def step_end(self, state: TrainState) -> None:
        """Search on."""
        if self._search is not None:
            self._search.steps += 1
            progress = self._search.steps / self._search.total_steps
            self._search.pruner.step(child_of(self._search.arm).head, progress)

    def day_end(self, state: TrainState) -> None:
        """Keep the mask that was found, and nothing else of the child."""
        if self._search is not None:
            self._found.append(read_masks(child_of(self._search.arm).head))
            state.arms.remove(self._search.arm)
            self._search = None

    def state_dict(self) -> dict[str, Any]:
        """All masks, and what goes on."""
        return {
            "found": [dump_masks(masks) for masks in self._found],
            "search_steps": None if self._search is None else self._search.steps,
            "recovering": [{"name": arm.name, "kept": dump_masks(masks)} for arm, masks in self._recovering],
        }

    def load_state_dict(self, saved: dict[str, Any], state: TrainState) -> None:
        """Build the arms again."""
        parent = parent_of(state, self._config.floor)
        self._found = [parse_masks(masks, parent.layout) for masks in saved["found"]]
        if saved["search_steps"] is not None:
            self._begin_search(state, saved["search_steps"])
        for recovering in saved["recovering"]:
            masks = parse_masks(recovering["kept"], parent.layout)
            self._add_recovering(state, blank_child(state, parent, recovering["name"], masks), masks)
