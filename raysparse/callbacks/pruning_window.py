"""A pruning window: a child loses its groups while it trains, and is at every moment as small as what it has kept."""

from dataclasses import dataclass

from pydantic import Field

from raysparse.callbacks.children import (
    Parent,
    TablesOfChild,
    blank_child,
    child_of,
    fork_masked,
    take_out,
    training_of,
)
from raysparse.config import Config
from raysparse.sparsity.build import PrunerConfig, build_pruner
from raysparse.sparsity.layout import Masks, open_masks, within
from raysparse.sparsity.pruner import Pruner, read_masks
from raysparse.train.arm import Arm
from raysparse.train.state import TrainState


class RecoveryConfig(Config):
    """The last part of a window, in which the masks stand and the weights settle."""

    share: float = Field(default=0.5, gt=0.0, lt=1.0)
    """Share of the window's steps."""
    learning_rate: float = Field(default=0.3, gt=0.0, le=1.0)
    """The child's dense learning rate in it, as a share of the parent's: what a constant rate leaves of noise in the
    weights goes. Afterwards it has the parent's again, since it has to follow the stream."""


@dataclass(frozen=True)
class Pruning:
    """What a window does."""

    pruner: PrunerConfig
    budget: float
    """Share of the dense head's multiply-adds that the child may take at its end."""
    seed: int
    total_steps: int
    recovery: RecoveryConfig = RecoveryConfig()
    narrows: bool = True
    """Whether pruned groups are taken out; otherwise the head stays at full size, so that they can come back."""

    @property
    def num_steps(self) -> int:
        """Steps in which groups are left out; in the others, the child recovers."""
        return max(1, round((1.0 - self.recovery.share) * self.total_steps))


class PruningWindow:
    """A child from its fork until its masks stand and it has recovered. Every rank, all the same."""

    def __init__(
        self, state: TrainState, parent: Parent, arm: Arm, pruning: Pruning, kept: Masks, steps: int = 0
    ) -> None:
        """`arm` is a child of the groups that are `kept`, masked where it is still to lose some."""
        self.arm = arm
        self.kept = kept
        """Groups of the parent that the child still has."""
        self.steps = steps
        self._pruning = pruning
        self._state = state
        self._parent = parent
        self._pruner: Pruner | None = None
        if not self.recovers:
            self._begin()
        self._set_rate()

    @classmethod
    def begin(
        cls,
        state: TrainState,
        parent: Parent,
        name: str,
        pruning: Pruning,
        *,
        inherit_optimizer: bool = True,
        tables: TablesOfChild = "shared",
    ) -> "PruningWindow":
        """Fork a child, which is not yet an arm of the run."""
        arm = fork_masked(state, parent, name, inherit_optimizer=inherit_optimizer, tables=tables)
        return cls(state, parent, arm, pruning, open_masks(parent.layout))

    @classmethod
    def restored(
        cls,
        state: TrainState,
        parent: Parent,
        name: str,
        pruning: Pruning,
        kept: Masks,
        steps: int,
        tables: TablesOfChild = "shared",
    ) -> "PruningWindow":
        """Build the window of a checkpoint; the child's tensors, the pruner's among them, are read afterwards."""
        own = kept if pruning.narrows else open_masks(parent.layout)
        masked = not (pruning.narrows and steps >= pruning.num_steps)
        arm = blank_child(state, parent, name, own, tables, masked=masked)
        return cls(state, parent, arm, pruning, kept, steps)

    @property
    def recovers(self) -> bool:
        """Whether the masks stand, so that the weights alone change."""
        return self.steps >= self._pruning.num_steps

    @property
    def has_settled(self) -> bool:
        """Whether half of the recovery is over, so that the child is nearly what it will be."""
        return 2 * self.steps >= self._pruning.num_steps + self._pruning.total_steps

    @property
    def is_over(self) -> bool:
        """Whether all its steps were made."""
        return self.steps >= self._pruning.total_steps

    def step(self) -> None:
        """Prune on after a training step; a child that loses groups for good becomes smaller at once."""
        self.steps += 1
        if self._pruner is not None and self._pruner.step(
            child_of(self.arm).head, self.steps / self._pruning.num_steps
        ):
            self._leave_out()
        self._set_rate()

    def _leave_out(self) -> None:
        masks = read_masks(child_of(self.arm).head)
        self.kept = within(self.kept, masks) if self._pruning.narrows else masks
        if self.recovers:
            self._pruner = None
        if self._pruning.narrows:
            take_out(self._state, self._parent, self.arm, masks, masked=self._pruner is not None)
            if self._pruner is not None:
                self._pruner.narrow(masks)
        child_of(self.arm).extras = {} if self._pruner is None else self._pruner.tensors()

    def _set_rate(self) -> None:
        settles = self.recovers and not self.is_over
        child_of(self.arm).rate = self._pruning.recovery.learning_rate if settles else 1.0

    def _begin(self) -> None:
        pruning = self._pruning
        training = training_of(self._state, self.arm)
        self._pruner = build_pruner(
            pruning.pruner, self._parent.layout, pruning.budget, pruning.num_steps, pruning.seed, training
        )
        if any(not mask.all() for mask in self.kept.values()) and pruning.narrows:
            self._pruner.narrow(self.kept)
        child_of(self.arm).extras = self._pruner.tensors()
