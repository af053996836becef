"""How long the day and the run will still take, told from progress events."""

from collections.abc import Mapping
from typing import Any


class TimeLeft:
    """An estimate that each progress event improves.

    The day is told from the speed of its phases, the days after it from what the days so far took, all included.
    """

    def __init__(self) -> None:
        self._samples_per_s: dict[str, float] = {}
        self._first: tuple[int, float] | None = None
        self._current: tuple[int, float] = (0, 0.0)
        self.day_s: float | None = None
        """Seconds to the end of the day; None until a speed is known."""
        self.run_s: float | None = None
        """Seconds to the end of the run; None until a speed is known."""
        self.days_done = 0.0
        """Days done, with the done part of the present one."""

    def update(self, event: Mapping[str, Any], now_s: float) -> None:
        """Take in a progress event that arrived at `now_s` on a steady clock."""
        day_index, rows = event["day_index"], event["rows_total"]
        if self._first is None or day_index < self._current[0]:
            self._first = self._current = (day_index, now_s)
        elif day_index > self._current[0]:
            self._current = (day_index, now_s)
        if event["samples_per_s"] > 0:
            self._samples_per_s[event["phase"]] = event["samples_per_s"]
        if not self._samples_per_s:
            self.days_done = float(day_index)
            return
        score_s, train_s = self._seconds("score", rows), self._seconds("train", rows)
        share_left = 1.0 - event["rows_done"] / max(rows, 1)
        day_s = score_s * share_left + train_s if event["phase"] == "score" else train_s * share_left
        self.days_done = day_index + 1.0 - day_s / max(score_s + train_s, 1e-9)
        self.day_s = day_s
        self.run_s = day_s + (event["num_days"] - day_index - 1) * self._typical_day_s(score_s + train_s)

    def _seconds(self, phase: str, rows: int) -> float:
        """What a phase takes for so many rows; as long as the other one where it has not been seen."""
        return rows / (self._samples_per_s.get(phase) or max(self._samples_per_s.values()))

    def _typical_day_s(self, estimate_s: float) -> float:
        assert self._first is not None
        days = self._current[0] - self._first[0]
        return (self._current[1] - self._first[1]) / days if days else estimate_s
