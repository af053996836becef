"""What the driver prints while a run goes on: a live display on a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

from raysparse.data.selection import are_epochs
from raysparse.report import ranking
from raysparse.report.number_text import (
    MISSING,
    counted,
    duration,
    fixed,
    mebibytes,
    percent,
    short,
    signed_percent,
    whole,
)
from raysparse.report.plan_table import plan_lines
from raysparse.report.printer import GAP, Bar, Printer, aligned, cut
from raysparse.report.time_left import TimeLeft
from raysparse.train.ranking_summary import is_ranking

LINE_INTERVAL_S = 10.0
"""Least seconds between progress lines where there is no terminal."""
ROWS_PER_HEADER = 40
"""The header of the table of days stands again after so many."""

_LONGEST_NAME = 17


class Console:
    """Prints a run's plan, progress, days and end; takes plain dicts, in any process.

    On a terminal a bar for the day and one for the run stay at the bottom. Without one it writes plain lines, no
    control characters, and a progress line only when nothing was printed for `LINE_INTERVAL_S`. Use it as a
    context manager, so that the terminal is left as it was whatever happens.
    """

    def __init__(self, stream: TextIO, is_terminal: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._printer = Printer(stream, is_terminal, clock)
        self._clock = clock
        self._left = TimeLeft()
        self._plan: list[str] = []
        self._arms: list[str] = []
        self._days_under_header = 0

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    def close(self) -> None:
        """Take the bars away; printing goes on without them until the next progress."""
        self._printer.close()

    def start(self, job_name: str, run_folder: str) -> None:
        """Print what is about to run."""
        self._printer.line(job_name, style="bold")
        self._printer.line(f"run folder {run_folder}")

    def message(self, text: str) -> None:
        """Print a line of text."""
        self._printer.line(text)

    def plan(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print the sharding table, once for as long as it stays the same; tables as in `plan.json`."""
        lines = plan_lines(rows)
        titles = ("table", "rows", "dim", "MiB", "sharding", "ranks")
        cells = [
            (line.label, whole(line.rows), whole(line.dim), mebibytes(line.num_bytes), line.sharding, line.ranks)
            for line in lines
        ]
        if len(rows) > 1:
            num_bytes = sum(line.num_bytes for line in lines)
            total = (f"all {len(rows)} tables", whole(sum(line.rows for line in lines)), "", mebibytes(num_bytes))
            cells.append((*total, "", ""))
        text = aligned([titles, *cells], left=(0, 4, 5))
        if text != self._plan:
            self._plan = text
            self._printer.line("")
            self._printer.table(text[:1], text[1:])
            self._printer.line("")

    def progress(self, event: Mapping[str, Any]) -> None:
        """Show how far the day is.

        `event` holds `day`, `phase` (`score` or `train`), `rows_done` of it, `rows_of_phase`, of both,
        `samples_per_s`, `day_index` (the first day is 0) and `num_days`.
        """
        self._left.update(event, self._clock())
        if self._printer.has_bars:
            self._printer.show(_bars(event, self._left))
        elif self._printer.silent_s >= LINE_INTERVAL_S:
            self._printer.line(_progress_line(event, self._left))

    def day(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Print a finished day, a record per arm as in the history, under a header that returns now and then.

        Arms in the shadow, which are trained but not served, are left out.
        """
        records = [record for record in records if not record.get("shadow")]
        arms = [record["arm"] for record in records]
        if arms != self._arms or self._days_under_header == ROWS_PER_HEADER:
            self._arms, self._days_under_header = arms, 0
            self._printer.table(ranking.day_header(arms) if is_ranking(records[0]) else _day_header(arms), [])
        self._days_under_header += 1
        self._printer.line(ranking.day_line(records) if is_ranking(records[0]) else _day_line(records))

    def finish(self, summary: Mapping[str, Any], run_folder: str, report: str) -> None:
        """Print what the run came to, and where it lies; `summary` as in `summary.json`."""
        self.close()
        unit = "epoch" if "epochs" in summary else "day"
        totals = [counted(summary[f"{unit}s"], unit), f"{whole(summary['rows'])} rows"]
        if summary.get("samples_per_s"):
            totals.append(f"{short(summary['samples_per_s'])} rows/s of training")
        self._printer.line("")
        time_text = f" in {duration(summary['seconds'])}" if summary.get("seconds") is not None else ""
        self._printer.line(f"{summary.get('status', 'finished')}{time_text}: {', '.join(totals)}", style="bold")
        arms: Mapping[str, Any] = summary.get("arms", {})
        if arms:
            ranked = any("ndcg@10" in means for means in arms.values())
            table = ranking.arm_table(arms) if ranked else _arm_table(list(arms.items()))
            self._printer.table(table[:1], table[1:])
        self._printer.line(f"run folder {run_folder}")
        self._printer.line(f"report     {report}")


def _bars(event: Mapping[str, Any], left: TimeLeft) -> list[Bar]:
    done, total = event["rows_done"], event["rows_of_phase"][event["phase"]]
    rows = f"{short(done)} of {short(total)} rows"
    speed = f"{short(event['samples_per_s'])} rows/s"
    return [
        Bar(f"{event['phase']} {event['day']}", done, total, (rows, speed, _left_text(left.day_s))),
        Bar("run", left.days_done, event["num_days"], (_place(event), "", _left_text(left.run_s))),
    ]


def _progress_line(event: Mapping[str, Any], left: TimeLeft) -> str:
    done, total = event["rows_done"], event["rows_of_phase"][event["phase"]]
    unit = "epoch" if are_epochs([event["day"]]) else "day"
    parts = [
        f"{event['phase']} {event['day']} ({_place(event)})",
        f"{whole(done)} of {whole(total)} rows ({100 * done / max(total, 1):.0f} %)",
        f"{short(event['samples_per_s'])} rows/s",
    ]
    parts += [f"{what} {_left_text(s)}" for what, s in ((unit, left.day_s), ("run", left.run_s)) if s is not None]
    return ", ".join(parts)


def _place(event: Mapping[str, Any]) -> str:
    """Which of the run's days it is; of epochs and the test, which is one more, the number alone."""
    number = f"{event['day_index'] + 1} of {event['num_days']}"
    return number if are_epochs([event["day"]]) else f"day {number}"


def _left_text(seconds: float | None) -> str:
    return f"{duration(seconds)} left" if seconds is not None else ""


# Columns of the table of days, within 80 letters for two arms; NE and AUC stand once per arm, under its name.
_DAY, _ROWS, _BASE_RATE, _SCORE, _SPEED = 10, 11, 9, 6, 9


def _day_header(arms: Sequence[str]) -> list[str]:
    width = 2 * _SCORE + len(GAP)
    before = " " * (_DAY + _ROWS + _BASE_RATE + 2 * len(GAP))
    names = [before, *(f"{cut(arm, width):>{width}}" for arm in arms)]
    titles = [f"{'day':<{_DAY}}", f"{'rows':>{_ROWS}}", f"{'base rate':>{_BASE_RATE}}"]
    titles += [f"{title:>{_SCORE}}" for _ in arms for title in ("NE", "AUC")]
    return [GAP.join(names), GAP.join([*titles, f"{'rows/s':>{_SPEED}}"])]


def _day_line(records: Sequence[Mapping[str, Any]]) -> str:
    first = records[0]
    speeds = [record["samples_per_s"] for record in records if record.get("samples_per_s")]
    cells = [
        f"{first['day']:<{_DAY}}",
        f"{whole(first['rows']):>{_ROWS}}",
        f"{percent(first.get('base_rate')):>{_BASE_RATE}}",
    ]
    for record in records:
        scores = [f"{fixed(record.get(name)):>{_SCORE}}" for name in ("ne", "auc")]
        cells += [f"{'warm-up':>{2 * _SCORE + len(GAP)}}"] if record.get("warm_up") else scores
    cells.append(f"{short(speeds[0]) if speeds else MISSING:>{_SPEED}}")
    return GAP.join(cells)


def _arm_table(arms: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    several = len(arms) > 1
    titles = ["arm", "NE", "stream NE", "AUC", "calibration"] + (
        [f"NE gap to {cut(arms[0][0], _LONGEST_NAME)}"] if several else []
    )
    rows: list[Sequence[str]] = [titles]
    for position, (arm, means) in enumerate(arms):
        cells = [
            arm,
            *(fixed(means.get(name)) for name in ("ne", "stream_ne", "auc")),
            fixed(means.get("calibration"), 3),
        ]
        rows.append(cells + ([signed_percent(means.get("ne_gap_percent")) if position else MISSING] if several else []))
    return aligned(rows, left=(0,))
