"""Keeps a copy of the model as it was on a day, to show what going on training is worth."""

from typing import Literal

from pydantic import Field

from raysparse.config import Config
from raysparse.sharding.weights import ShardedWeights
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState


class FrozenArmConfig(Config):
    """An arm that stops learning."""

    kind: Literal["frozen_arm"] = "frozen_arm"
    name: str = Field(default="frozen", pattern=r"^[a-z0-9_]+$")
    """Name of the arm in the history."""
    after_days: int = Field(default=30, ge=1)
    """Days that the model has learned from when it is copied."""


class FrozenArm(Callback):
    """Copies the trained arm, tables and all, once; the copy predicts every later day and learns nothing."""

    def __init__(self, config: FrozenArmConfig) -> None:
        self._config = config

    def day_start(self, state: TrainState) -> None:
        """Fork the arm on its day."""
        if state.position.day_index != self._config.after_days or state.arm(self._config.name) is not None:
            return
        trained = state.trained
        arm = state.make_arm(self._config.name, trains=False)
        assert isinstance(arm.model, ShardedWeights)
        assert isinstance(trained.model, ShardedWeights)
        arm.model.copy_from(trained.model)
        state.arms.append(arm)
