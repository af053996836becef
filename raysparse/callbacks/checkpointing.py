"""Saves the run per day and every so many minutes."""

import time
from collections.abc import Callable, Sequence

from pydantic import Field

from raysparse.config import Config
from raysparse.train.callback import Callback
from raysparse.train.checkpoint import CheckpointFolder, save
from raysparse.train.state import TrainState


class CheckpointConfig(Config):
    """When the run is saved, and how much is kept."""

    every_days: int = Field(default=1, ge=1)
    """Save after every so many days; the last day is always saved."""
    every_minutes: float | None = Field(default=10.0, gt=0)
    """Save within a day, too, when the last save is so long ago; null: only after days."""
    keep: int = Field(default=3, ge=1)
    """Checkpoints that are kept; older ones are removed."""


class Checkpointing(Callback):
    """Owns when to save; rank 0's clock decides and all ranks save after the same step."""

    def __init__(
        self,
        folder: CheckpointFolder,
        config: CheckpointConfig,
        callbacks: Sequence[Callback],
        saved: Callable[[str, TrainState], None],
    ) -> None:
        """Save `callbacks` with the run; `saved` is called on every rank with the path of what was saved."""
        self._folder = folder
        self._config = config
        self._callbacks = callbacks
        self._saved = saved
        self._last = time.monotonic()

    def step_end(self, state: TrainState) -> None:
        """Ask for a save when it is time, and save when all ranks have heard of it."""
        if state.save_agreed:
            self._save(state)
        elif state.is_rank_0 and self._config.every_minutes is not None:
            state.save_requested = time.monotonic() - self._last > self._config.every_minutes * 60

    def day_end(self, state: TrainState) -> None:
        """Save between days."""
        finished = state.position.day_index
        if finished % self._config.every_days == 0 or finished == len(state.days):
            records, state.records = state.records, []
            self._save(state)
            state.records = records

    def _save(self, state: TrainState) -> None:
        url = save(self._folder, state, self._callbacks)
        if state.is_rank_0:
            self._folder.keep(self._config.keep)
        state.save_requested = state.save_agreed = False
        self._last = time.monotonic()
        self._saved(url, state)
