"""Adaptive dense-to-sparse pruning: small children of the trained arm, renewed as the data drifts.

The trained arm is the dense parent; it goes on learning and is never pruned. A child is forked from it after a day's
scoring, pruned while both see the same batches, made really smaller, and served under the callback's name
(Ye et al. 2020, arXiv 2010.08655, describe the loop; the pruner and the rules are of raysparse's own design).
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch.distributed as dist
from pydantic import Field, model_validator

from raysparse.callbacks.children import (
    FloorConfig,
    Parent,
    TablesOfChild,
    blank_child,
    child_of,
    churn_between,
    compact_child,
    dump_masks,
    facts_of,
    fork_masked,
    parent_of,
    parse_masks,
    reset_weights,
    training_of,
)
from raysparse.config import Config
from raysparse.sparsity.build import PrunerConfig, build_pruner
from raysparse.sparsity.greedy import GreedyConfig
from raysparse.sparsity.layout import Masks, widths_of
from raysparse.sparsity.pruner import Pruner, read_masks
from raysparse.sparsity.regrowth import Regrowth, RegrowthConfig
from raysparse.sparsity.schedule import masks_stand
from raysparse.train.arm import Arm
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState


class NeverConfig(Config):
    """Prune once and keep the mask: the static arm of a comparison."""

    kind: Literal["never"] = "never"


class EveryConfig(Config):
    """Renew the served child on a fixed period."""

    kind: Literal["every"] = "every"
    days: int = Field(ge=1)
    """Life of a child; at least `window_days`."""


class EvidenceConfig(Config):
    """Renew it when candidates, once their masks stand, predict the next batches better than it does."""

    kind: Literal["evidence"] = "evidence"
    every_days: int = Field(default=1, ge=1)
    """Days between two candidates; at least `window_days`."""
    standard_errors: float = Field(default=0.0, ge=0.0)
    """How far the candidates' loss must be below the served child's, in standard errors of the paired batches."""
    memory: float = Field(default=0.5, ge=0.0, lt=1.0)
    """How much of the evidence of one candidate counts with the next, until there is a swap."""


RefreshConfig = Annotated[NeverConfig | EveryConfig | EvidenceConfig | RegrowthConfig, Field(discriminator="kind")]


class SparsityConfig(Config):
    """Small children of the trained arm, forked, pruned and swapped in as the data drifts."""

    kind: Literal["sparsity"] = "sparsity"
    name: str = Field(default="sparse", pattern=r"^[a-z0-9_]+$")
    """Name of the served arm in the history."""
    budget: float = Field(gt=0.0, lt=1.0)
    """Share of the dense head's multiply-adds that a child may take."""
    first_day: int = Field(default=15, ge=0)
    """Days that the parent has learned from before the first child is forked; let its NE become flat first."""
    window_days: int = Field(default=1, ge=1)
    """Days over which a child is pruned; in the last third its mask stands and its weights recover."""
    refresh: RefreshConfig = EvidenceConfig()
    """When the served child is renewed."""
    pruner: PrunerConfig = GreedyConfig()
    """What chooses the groups."""
    floor: FloorConfig = FloorConfig()
    """What every layer keeps."""
    teacher: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of a child's target that the parent's prediction takes once its masks stand; the label has the rest."""
    inherit_optimizer: bool = True
    """Whether a child takes over the parent's optimizer state with its weights."""
    tables: TablesOfChild = "shared"
    """Which tables a child reads: the parent's as they learn (no second look-up), a copy that stays as it was when the
    child was forked, or a copy that learns with the child."""
    weights: Literal["inherited", "fresh"] = "inherited"
    """Whether a pruned child keeps its weights, or only its mask: whether structure or inheritance counts."""

    @model_validator(mode="after")
    def _period_holds_window(self) -> "SparsityConfig":
        match self.refresh:
            case EveryConfig(days=days):
                key = "refresh.days"
            case EvidenceConfig(every_days=days):
                key = "refresh.every_days"
            case _:
                return self
        if days < self.window_days:
            raise ValueError(
                f"a {key} of at least window_days, {self.window_days}: one child is pruned at a time; found {days}"
            )
        return self


@dataclass
class _Candidate:
    """A child that is being pruned."""

    arm: Arm
    forked: int
    """Day of the run on which it was forked."""
    total_steps: int
    pruner: Pruner
    steps: int = 0

    @property
    def progress(self) -> float:
        """How much of its window is over."""
        return self.steps / self.total_steps


@dataclass
class _Evidence:
    """How much lower candidates' loss was than the served child's: sums over batches, each predicted before learned."""

    batches: float = 0.0
    differences: float = 0.0
    """Of the mean loss per row."""
    squares: float = 0.0

    def add(self, difference: float) -> None:
        self.batches += 1.0
        self.differences += difference
        self.squares += difference**2

    def fade(self, memory: float) -> None:
        self.batches *= memory
        self.differences *= memory
        self.squares *= memory

    def is_lower(self, standard_errors: float) -> bool:
        """Whether the mean difference is below zero by so many of its standard errors."""
        if not self.batches:
            return False
        mean = self.differences / self.batches
        variance = max(self.squares / self.batches - mean**2, 0.0)
        return mean < -standard_errors * (variance / self.batches) ** 0.5


class Sparsity(Callback):
    """Keeps one child served and, where it is due, a candidate for its place. Every rank, all the same."""

    def __init__(self, config: SparsityConfig, seed: int) -> None:
        self.state_key = f"sparsity/{config.name}"
        self._config = config
        self._seed = seed
        self._served: Arm | None = None
        self._masks: Masks | None = None
        self._pruned_on = 0
        self._candidate: _Candidate | None = None
        self._regrowth: Regrowth | None = None
        self._evidence = _Evidence()

    @property
    def _candidate_name(self) -> str:
        return f"{self._config.name}.candidate"

    def day_start(self, state: TrainState) -> None:
        """Say of the served child how old its mask is."""
        if self._served is not None:
            self._served.facts["mask_age_days"] = state.position.day_index - self._pruned_on - 1

    def scored(self, state: TrainState) -> None:
        """Fork where a child is due."""
        if self._served is not None:
            self._served.facts.pop("swapped", None)
            self._served.facts.pop("churn", None)
        if self._candidate is None and self._is_due(state):
            self._fork(state)

    def _is_due(self, state: TrainState) -> bool:
        config = self._config
        since = state.position.day_index - config.first_day
        # A child whose window ends with the run would never be served.
        if since < 0 or state.position.day_index + config.window_days >= len(state.days):
            return False
        match config.refresh:
            case EveryConfig(days=days):
                return since % days == 0
            case EvidenceConfig(every_days=days):
                return since % days == 0
            case _:
                return self._served is None

    def _fork(self, state: TrainState) -> None:
        config = self._config
        parent = parent_of(state, config.floor)
        name, inherit_optimizer = self._candidate_name, config.inherit_optimizer
        arm = fork_masked(state, parent, name, inherit_optimizer=inherit_optimizer, tables=config.tables)
        today = state.position.day_index
        window = state.days[today : today + config.window_days]
        total_steps = sum(state.stream.num_batches(day) for day in window)
        if isinstance(config.refresh, EvidenceConfig):
            self._evidence.fade(config.refresh.memory)
        self._candidate = self._adopt(state, parent, arm, today, total_steps)

    def _adopt(self, state: TrainState, parent: Parent, arm: Arm, forked: int, total_steps: int) -> _Candidate:
        """Make a child an arm of the run that is pruned."""
        config = self._config
        arm.facts = {"shadow": True}
        training = training_of(state, arm)
        pruner = build_pruner(config.pruner, parent.layout, config.budget, total_steps, self._seed + forked, training)
        child_of(arm).extras = pruner.tensors()
        state.arms.append(arm)
        return _Candidate(arm, forked, total_steps, pruner)

    def step_end(self, state: TrainState) -> None:
        """Prune the candidate; regrow the served child where it lives on in place."""
        if self._regrowth is not None and self._served is not None:
            self._regrow(self._regrowth, self._served)
        candidate = self._candidate
        if candidate is None:
            return
        if masks_stand(candidate.progress) and isinstance(self._config.refresh, EvidenceConfig):
            self._compare(state, candidate)
        candidate.steps += 1
        candidate.pruner.step(child_of(candidate.arm).head, candidate.progress)
        self._teach(candidate)

    def _teach(self, candidate: _Candidate) -> None:
        # A child that is still its parent has nothing to learn from it: the criterion would see no gradient.
        if masks_stand(candidate.progress):
            candidate.arm.teacher = self._config.teacher

    def _compare(self, state: TrainState, candidate: _Candidate) -> None:
        """Add how the candidate predicted the batch that both have just learned from."""
        if self._served is None:
            return
        assert state.batch is not None
        difference = state.losses[candidate.arm.name] - state.losses[self._served.name]
        if dist.get_world_size() > 1:
            dist.all_reduce(difference)
        self._evidence.add(difference.item() / state.batch.num_rows)

    def _regrow(self, regrowth: Regrowth, served: Arm) -> None:
        child = child_of(served)
        grown = regrowth.step(child.head)
        if grown is not None:
            regrowth.reset_moments(child.head, grown, child.trained_head.moments())
            self._masks = read_masks(child.head)
            served.facts["widths"] = widths_of(self._masks)
            served.macs = regrowth.layout.macs(served.facts["widths"])

    def day_end(self, state: TrainState) -> None:
        """End a window: the candidate is served, small, or dropped where the evidence is against it."""
        candidate = self._candidate
        if candidate is None or candidate.steps < candidate.total_steps:
            return
        self._candidate = None
        state.arms.remove(candidate.arm)
        refresh = self._config.refresh
        if (
            self._served is None
            or not isinstance(refresh, EvidenceConfig)
            or self._evidence.is_lower(refresh.standard_errors)
        ):
            masks = read_masks(child_of(candidate.arm).head)
            self._serve(state, self._finished(state, candidate, masks), masks)

    def _finished(self, state: TrainState, candidate: _Candidate, masks: Masks) -> Arm:
        """The candidate as it is served: really smaller, unless it goes on changing its groups in place."""
        parent = parent_of(state, self._config.floor)
        arm = candidate.arm
        if isinstance(self._config.refresh, RegrowthConfig):
            child_of(arm).extras = {}
            arm.macs = parent.layout.macs(widths_of(masks))
        else:
            arm = compact_child(state, parent, arm, masks)
            if self._config.weights == "fresh":
                reset_weights(child_of(arm).head, self._seed + candidate.forked)
                child_of(arm).trained_head.set_moments({})
        arm.facts = facts_of(parent.layout, masks)
        return arm

    def _serve(self, state: TrainState, arm: Arm, masks: Masks) -> None:
        """Put a child in the served one's place."""
        arm.facts["swapped"] = self._served is not None
        if self._served is not None and self._masks is not None:
            arm.facts["churn"] = churn_between(self._masks, masks)
            state.arms.remove(self._served)
        arm.name = self._config.name
        state.arms.append(arm)
        self._served, self._masks, self._evidence = arm, masks, _Evidence()
        # The day is over, the position stands at the next one.
        self._pruned_on = state.position.day_index - 1
        self._start_regrowth(state)

    def _start_regrowth(self, state: TrainState) -> None:
        refresh = self._config.refresh
        if isinstance(refresh, RegrowthConfig) and self._served is not None:
            layout = parent_of(state, self._config.floor).layout
            self._regrowth = Regrowth(refresh, layout, layout.budget_macs(self._config.budget), self._seed)
            child_of(self._served).extras = self._regrowth.tensors()

    def state_dict(self) -> dict[str, Any]:
        """Which arms there are, what they keep, and how far the window is."""
        candidate = self._candidate
        return {
            "served": None
            if self._served is None or self._masks is None
            else {"kept": dump_masks(self._masks), "pruned_on": self._pruned_on, "facts": self._served.facts},
            "candidate": None
            if candidate is None
            else {"forked": candidate.forked, "total_steps": candidate.total_steps, "steps": candidate.steps},
            "evidence": asdict(self._evidence),
        }

    def load_state_dict(self, saved: dict[str, Any], state: TrainState) -> None:
        """Build the arms again; their tensors, the pruner's among them, are read afterwards."""
        parent = parent_of(state, self._config.floor)
        if saved["served"] is not None:
            self._restore_served(saved["served"], state, parent)
        self._evidence = _Evidence(**saved["evidence"])
        candidate = saved["candidate"]
        if candidate is not None:
            arm = blank_child(state, parent, self._candidate_name, None, self._config.tables)
            self._candidate = self._adopt(state, parent, arm, candidate["forked"], candidate["total_steps"])
            self._candidate.steps = candidate["steps"]
            self._teach(self._candidate)

    def _restore_served(self, saved: dict[str, Any], state: TrainState, parent: Parent) -> None:
        self._masks = parse_masks(saved["kept"], parent.layout)
        in_place = isinstance(self._config.refresh, RegrowthConfig)
        kept = None if in_place else self._masks
        self._served = blank_child(state, parent, self._config.name, kept, self._config.tables)
        self._served.macs = parent.layout.macs(widths_of(self._masks))
        self._served.teacher = self._config.teacher
        self._served.facts = saved["facts"]
        self._pruned_on = saved["pruned_on"]
        state.arms.append(self._served)
        self._start_regrowth(state)
