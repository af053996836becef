"""Adaptive dense-to-sparse pruning: small children of the trained arm, renewed as the data drifts.

The trained arm is the dense parent; it goes on learning and is never pruned. A child is forked from it after a day's
scoring, pruned while both see the same batches, made really smaller, and served under the callback's name
(Ye et al. 2020, arXiv 2010.08655, describe the loop; the pruner and the rules are of raysparse's own design).
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from torch import Tensor

from raysparse.callbacks.children import (
    Parent,
    TablesOfChild,
    WidthsConfig,
    blank_child,
    child_of,
    churn_between,
    dump_masks,
    facts_of,
    parent_of,
    parse_masks,
    reset_weights,
)
from raysparse.callbacks.pruning_window import Pruning, PruningWindow, RecoveryConfig
from raysparse.config import Config
from raysparse.sparsity.build import PrunerConfig
from raysparse.sparsity.greedy import GreedyConfig
from raysparse.sparsity.layout import Masks, open_masks, widths_of
from raysparse.sparsity.pruner import read_masks
from raysparse.sparsity.regrowth import Regrowth, RegrowthConfig
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
    """Renew it when a candidate that is trained in its shadow predicts a day better."""

    kind: Literal["evidence"] = "evidence"
    standard_errors: float = Field(default=0.5, ge=0.0)
    """How far the candidate's loss must be below the served child's, in standard errors of the paired rows."""
    judged_days: int = Field(default=1, ge=1)
    """Latest days that are compared, together; several where a day has few rows or its rows are late, rainy or on sale
    together, which makes rows alone look surer than they are: the error is then that between days, if it is larger."""
    at_once: float | None = -2.0
    """A candidate is served right after its window where, in the window's last steps, its loss was below the served
    child's by so many standard errors of the steps; below 0: unless it was above by as many. Otherwise, and where this
    is null or `judged_days` above 1, it is compared on the days that follow. Of equal children one in forty is refused
    at -2, one in six at -1."""
    max_age_days: int = Field(default=2, ge=1)
    """Days since its fork, the window among them, after which a candidate that was never better is dropped and another
    one forked: at least `judged_days`, and `window_days - 1` more."""


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
    """Days over which a child is pruned and recovers."""
    recovery: RecoveryConfig = RecoveryConfig()
    """The last part of the window."""
    refresh: RefreshConfig = EvidenceConfig()
    """When the served child is renewed."""
    pruner: PrunerConfig = GreedyConfig()
    """What chooses the groups."""
    widths: WidthsConfig = WidthsConfig()
    """What a layer may keep."""
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
        if isinstance(self.refresh, EveryConfig) and self.refresh.days < self.window_days:
            raise ValueError(
                f"a refresh.days of at least window_days, {self.window_days}, since one child is pruned at a time; "
                f"found {self.refresh.days}"
            )
        return self

    @model_validator(mode="after")
    def _is_judged(self) -> "SparsityConfig":
        if isinstance(self.refresh, EvidenceConfig):
            least = self.refresh.judged_days + self.window_days - 1
            if self.refresh.max_age_days < least:
                raise ValueError(
                    f"a refresh.max_age_days of at least {least}, judged_days plus the days of the window but one, so "
                    f"that a candidate is judged before it is dropped; found {self.refresh.max_age_days}"
                )
        return self


@dataclass
class _Candidate:
    """A child that is being pruned, or trained in the shadow of the served one."""

    arm: Arm
    forked: int
    """Day of the run on which it was forked."""
    kept: Masks
    """Groups of the parent that it has."""
    window: PruningWindow | None = None
    """In which it is pruned; None once that is over."""
    settled: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    """Of its window's steps in which it had settled: their number, and the sums of the differences of mean loss to the
    served child's and of their squares."""
    days: list[list[float]] = field(default_factory=list)
    """Of each day that it was compared on: rows, and the sums of the paired differences of loss and their squares."""


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
        # Of today's rows: their number, and the sums of the paired differences of loss and of their squares.
        self._paired = torch.zeros(3, dtype=torch.float64)

    @property
    def _candidate_name(self) -> str:
        return f"{self._config.name}.candidate"

    def day_start(self, state: TrainState) -> None:
        """Say of the served child how old its mask is."""
        self._paired.zero_()
        if self._served is not None:
            self._served.facts["mask_age_days"] = state.position.day_index - self._pruned_on - 1

    def score_batch_end(self, state: TrainState, rows_done: int) -> None:
        """Compare candidate and served child row by row."""
        candidate = self._candidate
        if candidate is None or candidate.window is not None or self._served is None:
            return
        difference = state.row_losses[candidate.arm.name] - state.row_losses[self._served.name]
        rows = torch.count_nonzero(state.row_weights).double()
        self._paired += torch.stack([rows, difference.sum(), difference.square().sum()]).cpu()

    def scored(self, state: TrainState) -> None:
        """Swap on the day's evidence, and fork where a child is due."""
        if self._served is not None:
            self._served.facts.pop("swapped", None)
            self._served.facts.pop("churn", None)
        candidate = self._candidate
        if candidate is not None and candidate.window is None:
            self._judge(state, candidate)
        if self._candidate is None and self._is_due(state):
            self._fork(state)

    def _judge(self, state: TrainState, candidate: _Candidate) -> None:
        refresh = self._config.refresh
        assert isinstance(refresh, EvidenceConfig)
        if dist.get_world_size() > 1:
            on_device = self._paired.to(state.device)
            dist.all_reduce(on_device)
            self._paired = on_device.cpu()
        candidate.days = [*candidate.days, self._paired.tolist()][-refresh.judged_days :]
        mean, standard_error = _difference(candidate.days)
        if len(candidate.days) == refresh.judged_days and mean < -refresh.standard_errors * standard_error:
            self._serve(state, candidate)
        elif state.position.day_index - candidate.forked > refresh.max_age_days:
            state.arms.remove(candidate.arm)
            self._candidate = None

    def _is_due(self, state: TrainState) -> bool:
        config = self._config
        since = state.position.day_index - config.first_day
        # One whose window ends with the run is served when the run goes on with more days.
        if since < 0 or state.position.day_index + config.window_days > len(state.days):
            return False
        match config.refresh:
            case EveryConfig(days=days):
                return since % days == 0
            case EvidenceConfig():
                return True
            case _:
                return self._served is None

    def _fork(self, state: TrainState) -> None:
        config = self._config
        parent = parent_of(state, config.widths)
        today = state.position.day_index
        window = PruningWindow.begin(
            state,
            parent,
            self._candidate_name,
            self._pruning(state, today),
            inherit_optimizer=config.inherit_optimizer,
            tables=config.tables,
        )
        self._adopt(state, _Candidate(window.arm, today, window.kept, window))

    def _pruning(self, state: TrainState, forked: int) -> Pruning:
        config = self._config
        window = state.days[forked : forked + config.window_days]
        total_steps = sum(state.stream.num_batches(day) for day in window)
        # What is exchanged in place can come back.
        narrows = not isinstance(config.refresh, RegrowthConfig)
        return Pruning(config.pruner, config.budget, self._seed + forked, total_steps, config.recovery, narrows)

    def _adopt(self, state: TrainState, candidate: _Candidate) -> None:
        """Make a candidate an arm of the run."""
        candidate.arm.facts = {"shadow": True}
        self._candidate = candidate
        self._teach(candidate)
        state.arms.append(candidate.arm)

    def _teach(self, candidate: _Candidate) -> None:
        # A child that is still its parent has nothing to learn from it: the criterion would see no gradient.
        if candidate.window is None or candidate.window.recovers:
            candidate.arm.teacher = self._config.teacher

    def step_end(self, state: TrainState) -> None:
        """Prune the candidate; regrow the served child where it lives on in place."""
        if self._regrowth is not None and self._served is not None:
            self._regrow(self._regrowth, self._served)
        candidate = self._candidate
        if candidate is not None and candidate.window is not None:
            if candidate.window.has_settled:
                self._compare_step(state, candidate)
            candidate.window.step()
            candidate.kept = candidate.window.kept
            self._teach(candidate)

    def _compare_step(self, state: TrainState, candidate: _Candidate) -> None:
        """Compare candidate and served child on the rows that both have just learned from, as they were before."""
        if self._served is None or state.batch is None:
            return
        difference = state.step_losses[candidate.arm.name] - state.step_losses[self._served.name]
        if dist.get_world_size() > 1:
            dist.all_reduce(difference)
        mean = difference.double().cpu() / state.batch.num_rows
        candidate.settled += torch.stack([torch.ones_like(mean), mean, mean.square()])

    def _regrow(self, regrowth: Regrowth, served: Arm) -> None:
        child = child_of(served)
        grown = regrowth.step(child.head)
        if grown is not None:
            regrowth.reset_moments(child.head, grown, child.trained_head.moments())
            self._masks = read_masks(child.head)
            served.facts["widths"] = widths_of(self._masks)
            served.macs = regrowth.layout.macs(served.facts["widths"])

    def day_end(self, state: TrainState) -> None:
        """End a window: the candidate is served unless evidence has to come first."""
        candidate = self._candidate
        if candidate is None or candidate.window is None or not candidate.window.is_over:
            return
        layout = parent_of(state, self._config.widths).layout
        candidate.window = None
        candidate.arm.macs = layout.macs(widths_of(candidate.kept))
        if self._config.weights == "fresh":
            reset_weights(child_of(candidate.arm).head, self._seed + candidate.forked)
            child_of(candidate.arm).trained_head.set_moments({})
        candidate.arm.facts = {"shadow": True, **facts_of(layout, candidate.kept)}
        refresh = self._config.refresh
        if self._served is None or not isinstance(refresh, EvidenceConfig) or leads(candidate.settled, refresh):
            # The day is over, the position stands at the next one.
            self._serve(state, candidate, pruned_on=state.position.day_index - 1)

    def _serve(self, state: TrainState, candidate: _Candidate, pruned_on: int | None = None) -> None:
        """Put a candidate in the served child's place."""
        arm = candidate.arm
        facts = {key: value for key, value in arm.facts.items() if key != "shadow"}
        facts["swapped"] = self._served is not None
        if self._masks is not None:
            facts["churn"] = churn_between(self._masks, candidate.kept)
        if self._served is not None:
            state.arms.remove(self._served)
        arm.name, arm.facts = self._config.name, facts
        self._served, self._masks, self._candidate = arm, candidate.kept, None
        self._pruned_on = candidate.forked + self._config.window_days - 1 if pruned_on is None else pruned_on
        self._start_regrowth(state)

    def _start_regrowth(self, state: TrainState) -> None:
        refresh = self._config.refresh
        if isinstance(refresh, RegrowthConfig) and self._served is not None:
            layout = parent_of(state, self._config.widths).layout
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
            else {
                "kept": dump_masks(candidate.kept),
                "forked": candidate.forked,
                "settled": candidate.settled.tolist(),
                "window_steps": None if candidate.window is None else candidate.window.steps,
                "days": candidate.days,
            },
        }

    def load_state_dict(self, saved: dict[str, Any], state: TrainState) -> None:
        """Build the arms again; their tensors, the pruner's among them, are read afterwards."""
        parent = parent_of(state, self._config.widths)
        if saved["served"] is not None:
            self._restore_served(saved["served"], state, parent)
        if saved["candidate"] is not None:
            self._restore_candidate(saved["candidate"], state, parent)

    def _restore_served(self, saved: dict[str, Any], state: TrainState, parent: Parent) -> None:
        self._masks = parse_masks(saved["kept"], parent.layout)
        in_place = isinstance(self._config.refresh, RegrowthConfig)
        kept = open_masks(parent.layout) if in_place else self._masks
        self._served = blank_child(state, parent, self._config.name, kept, self._config.tables, masked=in_place)
        self._served.macs = parent.layout.macs(widths_of(self._masks))
        self._served.teacher = self._config.teacher
        self._served.facts = saved["facts"]
        self._pruned_on = saved["pruned_on"]
        state.arms.append(self._served)
        self._start_regrowth(state)

    def _restore_candidate(self, saved: dict[str, Any], state: TrainState, parent: Parent) -> None:
        config, kept, steps = self._config, parse_masks(saved["kept"], parent.layout), saved["window_steps"]
        if steps is None:
            arm = blank_child(state, parent, self._candidate_name, kept, config.tables)
            self._adopt(state, _Candidate(arm, saved["forked"], kept, days=saved["days"]))
            arm.facts |= facts_of(parent.layout, kept)
            return
        window = PruningWindow.restored(
            state, parent, self._candidate_name, self._pruning(state, saved["forked"]), kept, steps, config.tables
        )
        settled = torch.tensor(saved["settled"], dtype=torch.float64)
        self._adopt(state, _Candidate(window.arm, saved["forked"], kept, window, settled))


def leads(settled: Tensor, refresh: EvidenceConfig) -> bool:
    """Whether a candidate was far enough ahead in its window's last steps."""
    steps, total, squares = settled.tolist()
    if refresh.at_once is None or refresh.judged_days > 1 or steps < 2:
        return False
    mean = total / steps
    variance = max(squares - steps * mean**2, 0.0) / (steps - 1)
    return mean < -refresh.at_once * (variance / steps) ** 0.5


def _difference(days: list[list[float]]) -> tuple[float, float]:
    """Mean paired difference of loss over all rows of some days, and its standard error, of rows or of days."""
    rows, total, squares = (sum(column) for column in zip(*days, strict=True))
    mean = total / rows
    variance = max(squares - rows * mean**2, 0.0)
    if len(days) > 1:
        # Rows of a day differ from their mean together (Cameron and Miller 2015, J. Human Resources 50(2), eq. 11).
        between = sum((of_day - mean * num_rows) ** 2 for num_rows, of_day, _ in days)
        variance = max(variance, between * len(days) / (len(days) - 1))
    return mean, variance**0.5 / rows
