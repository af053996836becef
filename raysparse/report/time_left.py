"""How long the day and the run will still take, told from progress events."""

from collections.abc import Mapping
from typing import Any


class TimeLeft:
    """An estimate that each progress event improves.

    The day is told from the speed of its phases, the days after it from what the days so far took, all included. A
    phase that has not been seen yet leaves both open: ranking among all items may be hundreds of times as slow as
    training.
    """

    def __init__(self) -> None:
        self._samples_per_s: dict[str, float] = {}
        self._first: tuple[int, float] | None = None
        self._current: tuple[int, float] = (0, 0.0)
        self.day_s: float | None = None
        """Seconds to the end of the day; None until the speed of what is left of it is known."""
        self.run_s: float | None = None
        """Seconds to the end of the run; None until the speed of a whole day is known."""
        self.days_done = 0.0
        """Days done, with the done part of the present one."""

    def update(self, event: Mapping[str, Any], now_s: float) -> None:
        """Take in a progress event, as `Console.progress` has it, that arrived at `now_s` on a steady clock."""
        day_index, phase, rows_of_phase = event["day_index"], event["phase"], event["rows_of_phase"]
        if self._first is None or day_index < self._current[0]:
            self._first = self._current = (day_index, now_s)
        elif day_index > self._current[0]:
            self._current = (day_index, now_s)
        if event["samples_per_s"] > 0:
            self._samples_per_s[phase] = event["samples_per_s"]
        score_s, train_s = (self._seconds(one, rows_of_phase[one]) for one in ("score", "train"))
        share_left = 1.0 - event["rows_done"] / max(rows_of_phase[phase], 1)
        self.day_s = _sum(_times(score_s, share_left), train_s) if phase == "score" else _times(train_s, share_left)
        day_s = _sum(score_s, train_s)
        self.days_done = float(day_index)
        if day_s and self.day_s is not None:
            self.days_done += 1.0 - self.day_s / day_s
        days_s = _times(self._typical_day_s(day_s), event["num_days"] - day_index - 1)
        self.run_s = _sum(self.day_s, days_s)

    def _seconds(self, phase: str, rows: int) -> float | None:
        """What a phase takes for so many rows; None where it has not been seen: its speed may be another by far."""
        if not rows:
            return 0.0
        speed = self._samples_per_s.get(phase)
        return rows / speed if speed else None

    def _typical_day_s(self, estimate_s: float | None) -> float | None:
        assert self._first is not None
        days = self._current[0] - self._first[0]
        return (self._current[1] - self._first[1]) / days if days else estimate_s


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
