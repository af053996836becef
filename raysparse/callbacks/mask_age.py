"""The mask-age matrix: what a mask is worth that was found some days ago, the weights being today's.

At fixed dates, children are forked from the trained arm with masks of different ages, recover for one day with their
mask fixed, and predict the next. Only the pattern differs between them, so that a gap that grows with the age is the
pattern's own, whatever the weights have learned.
"""

from typing import Any, Literal

import torch
from pydantic import Field

from raysparse.callbacks.children import (
    WidthsConfig,
    blank_child,
    dump_masks,
    facts_of,
    fork_masked,
    parent_of,
    parse_masks,
    take_out,
)
from raysparse.callbacks.pruning_window import Pruning, PruningWindow
from raysparse.config import Config
from raysparse.sparsity.build import PrunerConfig
from raysparse.sparsity.greedy import GreedyConfig
from raysparse.sparsity.layout import Masks
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
    widths: WidthsConfig = WidthsConfig()
    """What a layer may keep."""


class MaskAge(Callback):
    """Finds a mask every so many days; the day after, has masks of all ages recover. Every rank."""

    def __init__(self, config: MaskAgeConfig, seed: int) -> None:
        self.state_key = f"mask_age/{config.name}"
        self._config = config
        self._seed = seed
        self._found: list[Masks] = []
        self._search: PruningWindow | None = None
        """Of a child that only serves to find a mask."""
        self._recovering: list[tuple[Arm, Masks]] = []

    def scored(self, state: TrainState) -> None:
        """Begin a search, or a recovery; end the recovery that has just been scored."""
        for arm, _ in self._recovering:
            state.arms.remove(arm)
        self._recovering = []
        days_since = state.position.day_index - self._config.first_day
        if days_since >= 0 and days_since % self._config.every_days == 0:
            parent = parent_of(state, self._config.widths)
            self._adopt(state, PruningWindow.begin(state, parent, self._search_name, self._pruning(state)))
        elif days_since % self._config.every_days == 1 and len(self._found) >= self._config.num_ages:
            self._begin_recovery(state)

    @property
    def _search_name(self) -> str:
        return f"{self._config.name}.search"

    def _pruning(self, state: TrainState) -> Pruning:
        seed = self._seed + state.position.day_index
        return Pruning(self._config.pruner, self._config.budget, seed, state.stream.num_batches(state.day))

    def _adopt(self, state: TrainState, search: PruningWindow) -> None:
        search.arm.facts = {"shadow": True}
        self._search = search
        state.arms.append(search.arm)

    def _begin_recovery(self, state: TrainState) -> None:
        newest_first = self._found[: -self._config.num_ages - 1 : -1]
        for number, masks in enumerate(newest_first):
            self._recover(state, f"age_{number * self._config.every_days:02d}", masks)
        self._recover(state, "random", self._random(newest_first[0], state.position.day_index))

    def _recover(self, state: TrainState, name: str, masks: Masks) -> None:
        parent = parent_of(state, self._config.widths)
        arm = fork_masked(state, parent, f"{self._config.name}.{name}", inherit_optimizer=True)
        take_out(state, parent, arm, masks)
        self._add_recovering(state, arm, masks)

    def _add_recovering(self, state: TrainState, arm: Arm, masks: Masks) -> None:
        layout = parent_of(state, self._config.widths).layout
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
            self._search.step()

    def day_end(self, state: TrainState) -> None:
        """Keep the mask that was found, and nothing else of the child."""
        if self._search is not None:
            self._found.append(self._search.kept)
            state.arms.remove(self._search.arm)
            self._search = None

    def state_dict(self) -> dict[str, Any]:
        """All masks, and what goes on."""
        return {
            "found": [dump_masks(masks) for masks in self._found],
            "search": None
            if self._search is None
            else {"steps": self._search.steps, "kept": dump_masks(self._search.kept)},
            "recovering": [{"name": arm.name, "kept": dump_masks(masks)} for arm, masks in self._recovering],
        }

    def load_state_dict(self, saved: dict[str, Any], state: TrainState) -> None:
        """Build the arms again."""
        parent = parent_of(state, self._config.widths)
        self._found = [parse_masks(masks, parent.layout) for masks in saved["found"]]
        if saved["search"] is not None:
            kept, steps = parse_masks(saved["search"]["kept"], parent.layout), saved["search"]["steps"]
            pruning = self._pruning(state)
            self._adopt(state, PruningWindow.restored(state, parent, self._search_name, pruning, kept, steps))
        for recovering in saved["recovering"]:
            masks = parse_masks(recovering["kept"], parent.layout)
            self._add_recovering(state, blank_child(state, parent, recovering["name"], masks), masks)
