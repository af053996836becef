"""Ends a run of epochs that gets no better, and keeps the weights of its best epoch."""

from typing import Any, Literal

from pydantic import Field

from raysparse.config import Config
from raysparse.sharding.weights import ShardedWeights
from raysparse.train.arm import TRAINED, Arm
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState

BEST = "best"
"""Name of the arm with the best epoch's weights; it predicts the test part."""


class EarlyStopConfig(Config):
    """A run of epochs that ends when the validation part is predicted no better; it holds the weights twice."""

    kind: Literal["early_stop"] = "early_stop"
    metric: Literal["ndcg@5", "ndcg@10", "ndcg@20", "hr@5", "hr@10", "hr@20", "mrr@10"] = "ndcg@10"
    """What has to grow."""
    patience: int = Field(default=10, ge=1)
    """Epochs without a new best one after which the run goes on to its test."""


class EarlyStop(Callback):
    """Copies the trained arm, tables and all, whenever its metric is the best so far. Every rank."""

    state_key = "early_stop"

    def __init__(self, config: EarlyStopConfig) -> None:
        self._config = config
        self._best: float | None = None
        self._waited = 0

    def fit_start(self, state: TrainState) -> None:
        """Make the arm, which rests until the test."""
        if state.arm(BEST) is None:
            state.arms.append(state.make_arm(BEST, trains=False))
        self._set_rest(state)

    def day_start(self, state: TrainState) -> None:
        """Have the best weights predict the test part, or the last ones where all epochs are warm-up."""
        if _is_last(state) and self._best is None:
            _weights(_arm(state, BEST)).copy_from(_weights(state.trained))
        self._set_rest(state)

    def scored(self, state: TrainState) -> None:
        """Compare an epoch after the warm-up with the best one; the ranks agree, since they have the same metrics."""
        record = next(record for record in state.records if record["arm"] == TRAINED)
        if _is_last(state) or record["warm_up"]:
            return
        value = record[self._config.metric]
        if self._best is None or value > self._best:
            self._best, self._waited = value, 0
            _weights(_arm(state, BEST)).copy_from(_weights(state.trained))
        else:
            self._waited += 1
            state.stopped = self._waited >= self._config.patience

    def state_dict(self) -> dict[str, Any]:
        """The best value, and the epochs since."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, saved: dict[str, Any], state: TrainState) -> None:
        """Take up what was saved; the arm comes back with the others."""
        self._best, self._waited = saved["best"], saved["waited"]

    def _set_rest(self, state: TrainState) -> None:
        _arm(state, BEST).rests = not _is_last(state)


def _is_last(state: TrainState) -> bool:
    return state.position.day_index >= len(state.days) - 1


def _arm(state: TrainState, name: str) -> Arm:
    arm = state.arm(name)
    assert arm is not None
    return arm


def _weights(arm: Arm) -> ShardedWeights:
    assert isinstance(arm.model, ShardedWeights)
    return arm.model
