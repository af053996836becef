"""What the driver prints while a search goes on: a live display on a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

from raysparse.report.number_text import counted, duration, fixed, mebibytes, short, whole
from raysparse.report.printer import Bar, Printer, aligned, cut
from raysparse.report.search_run import RESULTS, Contender, Results, results_of
from raysparse.search.quality import CLICKS, Quality

LINE_INTERVAL_S = 30.0
"""Least seconds between progress lines where there is no terminal."""

_LONGEST_NAME = 44


class SearchConsole:
    """Prints a search's phases, trials, runs and end; in any process.

    On a terminal a bar stays at the bottom while choices are scored. Without one it writes plain lines, no control
    characters, and a progress line only when nothing was printed for `LINE_INTERVAL_S`. Use it as a context manager,
    so that the terminal is left as it was whatever happens.
    """

    def __init__(
        self,
        stream: TextIO,
        is_terminal: bool,
        clock: Callable[[], float] = time.monotonic,
        quality: Quality = CLICKS,
    ) -> None:
        self._printer = Printer(stream, is_terminal, clock)
        self._title = quality.title
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._told: int | None = None

    def __enter__(self) -> "SearchConsole":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    def close(self) -> None:
        """Take the bar away; printing goes on without it until the next trial."""
        self._printer.close()

    def start(self, name: str, run_folder: str) -> None:
        """Print what is about to run."""
        self._printer.line(name, style="bold")
        self._printer.line(f"run folder {run_folder}")

    def phase(self, text: str) -> None:
        """Print what begins."""
        self.close()
        self._first = self._told = None
        self._printer.line(text, style="bold")

    def message(self, text: str) -> None:
        """Print a line of text."""
        self._printer.line(text)

    def trial(self, done: int, total: int, best: float | None, failed: int) -> None:
        """Show how many trials of a phase have ended, the best score so far, and how many failed.

        Speed and time left count from the first call of a phase: what it says is done was done before.
        """
        now_s = self._clock()
        if self._first is None:
            self._first = (done, now_s)
        speed, left = _pace(done - self._first[0], total - done, now_s - self._first[1])
        failures = f"{whole(failed)} failed" if failed else ""
        if self._printer.has_bars:
            texts = (f"{whole(done)} of {whole(total)}", f"best {fixed(best)}", failures, speed, left)
            self._printer.show([Bar("trials", done, total, texts)])
        elif done != self._told and (done >= total or self._printer.silent_s >= LINE_INTERVAL_S):
            self._told = done
            texts = (
                f"{whole(done)} of {whole(total)} trials",
                f"best {self._title} {fixed(best)}",
                failures,
                speed,
                left,
            )
            self._printer.line(", ".join(text for text in texts if text))

    def run_done(self, name: str, validation: float | None, test: float | None, seconds: float) -> None:
        """Print a finished run: its scores on validation and test, and how long it took."""
        self.close()
        scores = f"{self._title}: validation {fixed(validation):>6}  test {fixed(test):>6}"
        self._printer.line(f"{cut(name, _LONGEST_NAME):<{_LONGEST_NAME}}  {scores}  {duration(seconds)}")

    def finish(self, results: Mapping[str, Any], summary: Mapping[str, Any], run_folder: str, report: str) -> None:
        """Print what the search came to, and where it lies; as in `results.json` and `summary.json`."""
        self.close()
        self._printer.line("")
        self._printer.line(_closing_line(summary), style="bold")
        found = results_of(results, RESULTS)
        if found.contenders:
            table = _contest_table(found)
            self._printer.table(table[:1], table[1:])
            if found.chosen is not None:
                most = "the highest" if found.quality.is_better_high else "the least"
                self._printer.line(f"* the finalist with {most} validation {found.quality.title}")
            for text in found.without_score:
                self._printer.line(text)
        self._printer.line(f"run folder {run_folder}")
        self._printer.line(f"report     {report}")


def _pace(num_new: int, num_left: int, seconds: float) -> tuple[str, str]:
    if num_new <= 0 or seconds <= 0:
        return "", ""
    per_minute = 60 * num_new / seconds
    speed = f"{fixed(per_minute, 1) if per_minute < 10 else short(per_minute)} trials/min"
    return speed, f"{duration(seconds * num_left / num_new)} left" if num_left > 0 else ""


def _closing_line(summary: Mapping[str, Any]) -> str:
    text = str(summary.get("status", "finished"))
    if summary.get("seconds") is not None:
        text += f" in {duration(summary['seconds'])}"
    parts = [counted(summary["num_trials"], "trial")] if summary.get("num_trials") is not None else []
    if summary.get("num_failed"):
        parts.append(f"{whole(summary['num_failed'])} failed")
    if summary.get("trials_per_minute"):
        parts.append(f"{short(summary['trials_per_minute'])} trials/min")
    return f"{text}: {', '.join(parts)}" if parts else text


def _contest_table(results: Results) -> list[str]:
    titles = (
        *("network", "rate", "MACs", "parameters", "tables, MiB", "trial", "validation", "test"),
        f"test {results.quality.second_title}",
    )
    rows: list[Sequence[str]] = [titles, *(_contest_cells(contender) for contender in results.contenders)]
    if results.teacher != (None, None):
        rows.append(("best possible", *[""] * 5, fixed(results.teacher[0]), fixed(results.teacher[1]), ""))
    return aligned(rows, left=(0,))


def _contest_cells(contender: Contender) -> list[str]:
    numbers = contender.numbers
    rate = numbers["learning_rate"]
    return [
        f"{contender.label} *" if contender.chosen else contender.label,
        "" if rate is None else f"{rate:g}",
        short(numbers["macs"]),
        short(numbers["parameters"]),
        mebibytes(numbers["embedding_bytes"]),
        fixed(numbers["trial"]),
        fixed(numbers["validation"]),
        fixed(numbers["test"]),
        fixed(numbers["test_second"]),
    ]
