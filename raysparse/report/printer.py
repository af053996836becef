"""Lines for a person, with bars below them on a terminal."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

GAP = "  "
"""What stands between the columns of a table."""


@dataclass(frozen=True)
class Bar:
    """How far something is."""

    name: str
    completed: float
    total: float
    texts: Sequence[str]
    """What stands behind the bar; as many for each bar, empty where there is nothing to say."""


class Printer:
    """Prints lines in any process; on a terminal, bars stay below them until they are closed.

    Without a terminal it writes plain lines, no control characters, and no bars.
    """

    def __init__(self, stream: TextIO, is_terminal: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._rich = RichConsole(file=stream, force_terminal=True) if is_terminal else None
        self._live: Progress | None = None
        self._bars: list[TaskID] = []
        self._last_line_s = clock()

    @property
    def has_bars(self) -> bool:
        """Whether bars are shown."""
        return self._rich is not None

    @property
    def silent_s(self) -> float:
        """Seconds since the last line."""
        return self._clock() - self._last_line_s

    def line(self, text: str, style: str = "") -> None:
        """Print a line; letters that would move the cursor become question marks."""
        text = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
        self._last_line_s = self._clock()
        if self._rich is not None:
            # lines may be wider than the terminal: it breaks them itself, and a copy of them stays whole
            self._rich.print(Text(text, style=style), soft_wrap=True)
        else:
            self._stream.write(text.rstrip() + "\n")
            self._stream.flush()

    def table(self, header: Sequence[str], lines: Sequence[str]) -> None:
        """Print lines under a header."""
        for line in header:
            self.line(line, style="bold")
        for line in lines:
            self.line(line)

    def show(self, bars: Sequence[Bar]) -> None:
        """Show bars, in place of those that are shown; nothing without a terminal."""
        if self._rich is None:
            return
        begins = self._live is None
        live = self._live = self._live or _progress(self._rich, len(bars[0].texts))
        if begins:
            self._bars = [live.add_task(bar.name, texts=bar.texts) for bar in bars]
        for task, bar in zip(self._bars, bars, strict=True):
            live.update(task, description=bar.name, completed=bar.completed, total=bar.total, texts=bar.texts)
        if begins:
            live.start()
            live.refresh()

    def close(self) -> None:
        """Take the bars away; lines go on without them until the next ones."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Pad cells to the widest of their column, the columns in `left` to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        GAP.join(
            f"{cell:<{width}}" if column in left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def cut(name: str, length: int) -> str:
    """Shorten a name to so many letters."""
    return name if len(name) <= length else name[: length - 2] + ".."


def _progress(rich: RichConsole, num_texts: int) -> Progress:
    columns = [
        TextColumn(f"{{task.fields[texts][{place}]}}", justify="right", table_column=Column(no_wrap=True))
        for place in range(num_texts)
    ]
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        *columns,
        console=rich,
        transient=True,
        refresh_per_second=4,
        expand=True,
    )
