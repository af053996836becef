"""Tells the driver how far the run is."""

import resource
import time
from collections.abc import Callable
from typing import Any

from raysparse.train.callback import Callback
from raysparse.train.state import TrainState

_INTERVAL_S = 0.5

Tell = Callable[[dict[str, Any]], None]
"""Takes an event to whoever shows it."""


class Progress(Callback):
    """Sends events from rank 0: `progress`, at most two a second, `day`, and `facts` at the end."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last = 0.0
        self._started = 0.0
        self._rows_before = 0
        self._rows_trained = 0
        self._first_batch: float | None = None
        self._first_step: float | None = None

    def day_start(self, state: TrainState) -> None:
        """Start the clock of the day's scoring."""
        self._start(0)

    def score_batch_end(self, state: TrainState, rows_done: int) -> None:
        """Show the scoring."""
        self._first_batch = self._first_batch or time.time()
        self._show(state, "score", rows_done)

    def scored(self, state: TrainState) -> None:
        """Start the clock of the day's training."""
        self._start(0)

    def step_end(self, state: TrainState) -> None:
        """Show the training."""
        assert state.batch is not None
        self._first_step = self._first_step or time.time()
        if self._started == 0.0:
            # The run goes on within a day; what was trained before does not count into the speed.
            batches = max(1, state.stream.num_batches(state.day))
            self._start(int(state.day.rows * (state.batch.index / batches)))
        self._rows_trained += state.batch.num_rows
        self._show(state, "train", self._rows_trained)

    def day_end(self, state: TrainState) -> None:
        """Send the finished day's records."""
        if state.is_rank_0:
            self._tell({"event": "day", "records": state.records})

    def fit_end(self, state: TrainState) -> None:
        """Send when the first batch was scored and the first step done, and the most memory that rank 0 has held."""
        if state.is_rank_0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            facts = {"first_batch": self._first_batch, "first_step": self._first_step, "peak_worker_gib": peak}
            self._tell({"event": "facts", "facts": facts})

    def _start(self, rows_done: int) -> None:
        self._started = time.monotonic()
        self._rows_before = self._rows_trained = rows_done

    def _show(self, state: TrainState, phase: str, rows_done: int) -> None:
        now = time.monotonic()
        if not state.is_rank_0 or now - self._last < _INTERVAL_S:
            return
        self._last = now
        self._tell(
            {
                "event": "progress",
                "day": state.day.day,
                "phase": phase,
                "rows_done": rows_done,
                "rows_of_phase": {"score": state.stream.num_scored_rows(state.day), "train": state.day.rows},
                "samples_per_s": (rows_done - self._rows_before) / max(now - self._started, 1e-9),
                "day_index": state.position.day_index,
                "num_days": len(state.days),
            }
        )
