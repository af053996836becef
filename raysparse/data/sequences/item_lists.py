"""Lines of items in order of time, the first word of each line its user: the format `text`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysparse.data.arrow import compute as pc
from raysparse.data.delimited import LineFormat, parse_block
from raysparse.data.lines import LineBlock, list_files
from raysparse.data.rejects import Rejects
from raysparse.data.sequences.config import SequencesConfig
from raysparse.data.sequences.event_rows import read_lines, reject_lines
from raysparse.data.sequences.events import EventBlock, coded

_LINE = LineFormat(("line",), ("line",), "\x1f")
"""A delimiter that no text holds: the line is one column."""


@dataclass(frozen=True)
class WordLines:
    """The lines of a block as lists of words."""

    words: pa.Array
    """The words of all lines, one after the other."""
    ends: npt.NDArray[np.int64]
    """Words up to the end of each line, `[lines]`."""
    lines: npt.NDArray[np.int64]
    """Place of each line in the block, `[lines]`."""
    misfits: dict[int, str]
    """Reason for each line of the block that could not be read."""


class ItemLists:
    """A line per user; a user of several lines has the items of all of them, in the order of the lines."""

    def __init__(self, config: SequencesConfig) -> None:
        self._paths = list_files(config.input, pattern=r".*\.(txt|dat|csv)(\.gz)?")

    def blocks(self, rejects: Rejects) -> Iterator[EventBlock]:
        """Read the events of all files (driver)."""
        for path in self._paths:
            for block in read_lines(path):
                lines = split_words(block)
                sizes = np.diff(lines.ends, prepend=0)
                lonely = {int(line): "a user without items" for line in lines.lines[sizes == 1]}
                reject_lines(path, block, lines.misfits | lonely, rejects)
                yield _events(lines, sizes)


def split_words(block: LineBlock) -> WordLines:
    """Cut the lines of a block at white space (driver)."""
    rows = parse_block(block, _LINE)
    texts = pc.ascii_trim_whitespace(rows.columns["line"])
    blank = ~np.asarray(pc.fill_null(pc.greater(pc.binary_length(texts), 0), False))
    misfits = rows.misfits | {int(line): "an empty line" for line in rows.lines[blank]}
    lists = pc.ascii_split_whitespace(texts.filter(pa.array(~blank)))
    sizes = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    return WordLines(lists.flatten(), np.cumsum(sizes), rows.lines[~blank], misfits)


def _events(lines: WordLines, sizes: npt.NDArray[np.int64]) -> EventBlock:
    is_user = np.zeros(len(lines.words), bool)
    is_user[lines.ends - sizes] = True
    has_items = np.repeat(sizes > 1, sizes)
    users = coded(lines.words.filter(pa.array(is_user & has_items)))
    counts = sizes[sizes > 1] - 1
    of_each = pa.array(np.repeat(users.indices.to_numpy(), counts), pa.int32())
    return EventBlock(
        pa.DictionaryArray.from_arrays(of_each, users.dictionary), coded(lines.words.filter(pa.array(~is_user))), None
    )
