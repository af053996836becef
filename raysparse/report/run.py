"""A run as read from its folder: the history has to be whole, all else may be missing."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysparse.data.dataset import TEST
from raysparse.data.selection import are_epochs
from raysparse.errors import DataError
from raysparse.train.ranking_summary import RANKING_METRICS
from raysparse.train.run_folder import HISTORY, JOB, PLAN, SUMMARY, RunFolder
from raysparse.train.summary import arms_in_order, summarize

SCORES = ("ne", "auc", "log_loss", "calibration", *RANKING_METRICS)
"""What a warm-up day does not count for."""
NUMBERS = (
    *SCORES,
    "base_rate",
    "best_ne",
    "targets",
    "macs",
    "churn",
    "kept_rows",
    "kept_row_bytes",
    "table_bytes",
    "remapping_bytes",
    "trained_rows",
    "samples_per_s",
    "score_samples_per_s",
    "train_seconds",
)
_REQUIRED = ("base_rate", "log_loss")
_OF_SOME = ("targets", "trained_rows", *RANKING_METRICS)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DayRecord:
    """One line of the history: one arm on one day."""

    day: str
    arm: str
    rows: int
    numbers: Mapping[str, float | None]
    """Value of each of `NUMBERS`; None where the day gave none. Base rate and log loss are always there, or the ranks'
    metrics."""
    warm_up: bool
    swapped: bool | None = None
    """On the first day under a mask, whether it took another one's place; None on all other days."""
    widths: Mapping[str, int] = field(default_factory=dict)
    """Groups kept per place; empty where nothing was pruned."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Groups per place of the dense model; empty where nothing was pruned."""
    kept_table_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows kept per table; empty where no rows are pruned."""
    table_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows per table, kept or not; empty where no rows are pruned."""

    @property
    def scores(self) -> Mapping[str, float | None]:
        """The numbers, without the scores of a warm-up day."""
        return {**self.numbers, **dict.fromkeys(SCORES)} if self.warm_up else self.numbers


class History:
    """All days of a run; days in the order of the stream, arms in the order they first appear, the dense one first."""

    def __init__(self, records: list[DayRecord]) -> None:
        self.days = sorted({record.day for record in records})
        self.arms = arms_in_order(record.arm for record in records)
        arm_position = {arm: position for position, arm in enumerate(self.arms)}
        self.records = sorted(records, key=lambda record: (record.day, arm_position[record.arm]))
        self._day_position = {day: position for position, day in enumerate(self.days)}

    @cached_property
    def is_ranking(self) -> bool:
        """Whether next items were predicted, not labels."""
        return any(record.numbers.get("targets") is not None for record in self.records)

    @cached_property
    def epochs(self) -> "History | None":
        """Without its test, where epochs were learned, whose validation is another thing; None for a stream of days."""
        if not are_epochs(self.days):
            return None
        return History([record for record in self.records if record.day != TEST])

    @property
    def unit(self) -> str:
        """What its lines are called: a day, or an epoch."""
        return "day" if self.epochs is None else "epoch"

    def series(self, arm: str, name: str) -> Floats:
        """Values of one of `NUMBERS` over the days, `[num_days]`; NaN where missing, and for scores of warm-up days."""
        return self._over_days(arm, lambda record: record.scores.get(name))

    def shared(self, name: str) -> Floats:
        """Like `series`, for what is the same for all arms of a day: the first arm that has it gives it."""
        values = self.series(self.arms[0], name)
        for arm in self.arms[1:]:
            values = np.where(np.isnan(values), self.series(arm, name), values)
        return values

    @cached_property
    def has_masks(self) -> bool:
        """Whether an arm was pruned by masks that others can follow."""
        return any(record.swapped is not None for record in self.records)

    def swapped(self, arm: str) -> NDArray[np.bool_]:
        """Whether a mask of the arm took another one's place on the day, `[num_days]`."""
        swapped = np.zeros(len(self.days), dtype=np.bool_)
        for record in self.records:
            if record.arm == arm and record.swapped:
                swapped[self._day_position[record.day]] = True
        return swapped

    def dense_groups(self, arm: str) -> dict[str, int]:
        """Groups of the dense model per place that the arm is pruned in, places in order; empty if it is in none."""
        groups: dict[str, int] = {}
        for record in self.records:
            if record.arm == arm:
                groups |= {place: size for place, size in record.groups.items() if size and place in record.widths}
        return groups

    def widths(self, arm: str, place: str) -> Floats:
        """Groups that the arm keeps in a place over the days, `[num_days]`; NaN where missing."""
        return self._over_days(arm, lambda record: record.widths.get(place))

    def table_rows(self, arm: str) -> dict[str, int]:
        """Rows of each table that the arm keeps some rows of, tables in order; empty if its rows are not pruned."""
        rows: dict[str, int] = {}
        for record in self.records:
            if record.arm == arm:
                kept = record.kept_table_rows
                rows |= {table: size for table, size in record.table_rows.items() if size and table in kept}
        return rows

    def kept_rows(self, arm: str, table: str) -> Floats:
        """Rows that the arm keeps of a table over the days, `[num_days]`; NaN where missing."""
        return self._over_days(arm, lambda record: record.kept_table_rows.get(table))

    def _over_days(self, arm: str, value_of: Callable[[DayRecord], float | None]) -> Floats:
        values = np.full(len(self.days), np.nan)
        for record in self.records:
            value = value_of(record) if record.arm == arm else None
            if value is not None:
                values[self._day_position[record.day]] = value
        return values

    @cached_property
    def rows(self) -> Floats:
        """Rows of each day, `[num_days]`."""
        rows = np.zeros(len(self.days))
        for record in self.records:
            rows[self._day_position[record.day]] = record.rows
        return rows

    @cached_property
    def warm_up(self) -> NDArray[np.bool_]:
        """Whether no arm was scored on the day, `[num_days]`."""
        warm_up = np.ones(len(self.days), dtype=np.bool_)
        for record in self.records:
            warm_up[self._day_position[record.day]] &= record.warm_up
        return warm_up

    @cached_property
    def totals(self) -> Mapping[str, Any]:
        """What `train.summary.summarize` makes of the days: the totals, and the means per arm under `arms`."""
        return summarize(
            [
                {
                    "day": record.day,
                    "arm": record.arm,
                    "rows": record.rows,
                    "warm_up": record.warm_up,
                    "swapped": record.swapped,
                    **{
                        name: number
                        for name, number in record.numbers.items()
                        if name not in _OF_SOME or number is not None
                    },
                    "train_seconds": record.numbers["train_seconds"] or 0.0,
                }
                for record in self.records
            ]
        )


@dataclass(frozen=True)
class Run:
    """What a run left in its folder."""

    history: History
    summary: Mapping[str, Any]
    """Empty where the run left none."""
    plan: list[Mapping[str, Any]]
    """A mapping per table; empty where the run left none."""
    job: str
    """The resolved job as YAML; empty where the run left none."""
    missing: list[str]
    """A sentence for each file that is not there or cannot be read."""


def read_run(folder: RunFolder) -> Run:
    """Read a run folder on a disk or an object store, in any process.

    Raises a DataError, naming file and line, where the history is missing or broken.
    """
    missing: list[str] = []
    history = _read_history(folder)
    summary = read_json(folder, SUMMARY, "the run has not ended, or was stopped", dict, missing)
    plan = read_json(folder, PLAN, "the sharding table is left out", list, missing)
    job = read_text(folder, JOB)
    if job is None:
        missing.append(f"{JOB} is missing: the job is left out.")
    if faulty := [table for table in plan or [] if not _is_table(table)]:
        missing.append(f"{PLAN} holds {json.dumps(faulty[0])}, which is no table with rows and dim: left out.")
        plan = None
    return Run(history, summary or {}, plan or [], job or "", missing)


def read_text(folder: RunFolder, name: str) -> str | None:
    """Return the text of a file, None where it is not there; DataError where it is no text."""
    try:
        return folder.read(name)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{folder.url(name)} is damaged, or was not written by a run: no UTF-8 text ({error})"
        ) from error


def read_json(folder: RunFolder, name: str, consequence: str, expected: type, missing: list[str]) -> Any:
    """Return what a file holds; None, and a sentence in `missing`, where it is not there or something else."""
    text = read_text(folder, name)
    if text is None:
        missing.append(f"{name} is missing: {consequence}.")
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        missing.append(f"{name} is not JSON ({error}): {consequence}.")
        return None
    if not isinstance(value, expected):
        missing.append(f"{name} holds a {type(value).__name__}, not a {expected.__name__}: {consequence}.")
        return None
    return value


def number_of(value: Any) -> float | None:
    """Return a value of a summary as a number; None where it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def kind_of(part: Any) -> str:
    """Return the kind that a part of a job has under `kind`, or consists of; empty where it has none."""
    return str(part.get("kind", "")) if isinstance(part, Mapping) else str(part or "")


def _is_table(table: Any) -> bool:
    return isinstance(table, dict) and "table" in table and _is_count(table.get("rows")) and _is_count(table.get("dim"))


def _read_history(folder: RunFolder) -> History:
    path = folder.url(HISTORY)
    text = read_text(folder, HISTORY)
    if text is None:
        raise DataError(f"{path} is missing: a run folder has one from its first finished day on")
    records: list[DayRecord] = []
    line_of: dict[tuple[str, str], int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        tree = _parse_line(line, f"{path}, line {number}")
        earlier = line_of.setdefault((tree["day"], tree["arm"]), number)
        if earlier != number:
            raise DataError(
                f"{path}, line {number}: day {tree['day']!r}, arm {tree['arm']!r} stands in line {earlier} already; "
                "each day and arm stands in the history once: delete one of the two lines"
            )
        if tree.get("shadow") is not True:
            records.append(_record(tree, f"{path}, line {number}"))
    if not records:
        raise DataError(f"{path} is empty, or has arms in the shadow only: a run writes a line for each day and arm")
    return History(records)


def _parse_line(line: str, origin: str) -> dict[str, Any]:
    try:
        tree = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{origin}: found {_excerpt(line)}, which is not JSON ({error.msg}); delete the line"
        ) from error
    if not isinstance(tree, dict):
        raise DataError(f"{origin}: found {_excerpt(line)}; allowed: an object with day, arm and rows")
    for key in ("day", "arm"):
        if not isinstance(tree.get(key), str):
            raise DataError(f"{origin}: {key}: found {json.dumps(tree.get(key))}; allowed: a text")
    return tree


def _record(tree: Mapping[str, Any], origin: str) -> DayRecord:
    if not _is_count(tree.get("rows")):
        raise DataError(f"{origin}: rows: found {json.dumps(tree.get('rows'))}; allowed: a whole number, 0 or more")
    numbers = {name: _number(tree, name, origin) for name in NUMBERS}
    required = RANKING_METRICS if "targets" in tree else _REQUIRED
    for name in required:
        if numbers[name] is None:
            raise DataError(f"{origin}: {name}: found {json.dumps(tree.get(name))}; allowed: a number")
    swapped = tree.get("swapped")
    if not isinstance(swapped, bool | None):
        raise DataError(f"{origin}: swapped: found {json.dumps(swapped)}; allowed: true, false or null")
    return DayRecord(
        tree["day"],
        tree["arm"],
        tree["rows"],
        numbers,
        tree.get("warm_up") is True,
        swapped,
        _counts(tree, "widths", "place", origin),
        _counts(tree, "groups", "place", origin),
        _counts(tree, "kept_table_rows", "table", origin),
        _counts(tree, "table_rows", "table", origin),
    )


def _number(tree: Mapping[str, Any], name: str, origin: str) -> float | None:
    value = tree.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{origin}: {name}: found {json.dumps(value)}; allowed: a number or null")
    return float(value) if math.isfinite(value) else None


def _counts(tree: Mapping[str, Any], name: str, key: str, origin: str) -> Mapping[str, int]:
    counts = tree.get(name) or {}
    if not isinstance(counts, dict) or not all(_is_count(count) for count in counts.values()):
        raise DataError(f"{origin}: {name}: found {json.dumps(counts)}; allowed: a whole number for each {key}")
    return counts


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _excerpt(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")
