"""A split that is ready: the format `split`.

    train_input.txt     a line per user: the items before those that are left out
    test_output.txt     the last item of each of these users, line by line
    val_input.txt       of some users: the items before the second last, which are those of train_input and one more
    val_output.txt      the second-last item of each of these, line by line

Each may be packed with gzip. The second-last item of the users that are not in val_input is not known; their history
in the test ends with the item before it. The histories of train_input are complete, and can be split anew.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import fsspec
import numpy as np
import pyarrow as pa

from raysparse.data.arrow import compute as pc
from raysparse.data.dataset import TEST, TRAIN, VALIDATION
from raysparse.data.rejects import Rejects
from raysparse.data.sequences.config import SequencesConfig
from raysparse.data.sequences.event_rows import read_lines, reject_lines
from raysparse.data.sequences.events import Codes, EventBlock, Events, coded
from raysparse.data.sequences.histories import Histories, Places, Rows, histories_of
from raysparse.data.sequences.item_lists import split_words
from raysparse.data.sequences.leave_one_out import train_rows
from raysparse.errors import DataError

_TRAIN, _TEST, _VALIDATION, _NEXT = "train_input", "test_output", "val_input", "val_output"


@dataclass(frozen=True)
class SplitRows:
    """What a ready split holds."""

    histories: Histories
    names: pa.Array
    """Names of the items in the order of their rows, `[items]`."""
    rows: dict[str, Rows]
    train_ends: Places
    """Where each user's training items end, `[users]`."""
    num_unknown: int
    """Users whose second-last item is not known."""


@dataclass(frozen=True)
class _ItemFile:
    """The lines of one file, each a list of items."""

    path: str
    items: pa.DictionaryArray
    sizes: Places
    """Items of each line, `[lines]`."""
    texts: pa.Array
    """Each line with one blank between its items, `[lines]`."""


class TrainInput:
    """The lines of train_input, each a user, whose name is the number of the line."""

    def __init__(self, config: SequencesConfig) -> None:
        self._path = _find(config.input, (_TRAIN,))[_TRAIN]

    def blocks(self, rejects: Rejects) -> Iterator[EventBlock]:
        """Read the events of the file (driver)."""
        for block in read_lines(self._path):
            lines = split_words(block)
            reject_lines(self._path, block, lines.misfits, rejects)
            numbers = np.repeat(block.first_line + lines.lines, np.diff(lines.ends, prepend=0))
            yield EventBlock(coded(pa.array(numbers)), coded(lines.words), None)


class ReadySplit:
    """The four files of a folder."""

    def __init__(self, config: SequencesConfig) -> None:
        self._paths = _find(config.input, (_TRAIN, _TEST, _VALIDATION, _NEXT))

    def read(self) -> SplitRows:
        """Read the split (driver), whole in memory: some 60 bytes an item of a line, and twice the text of the files.

        DataError names the file and line that does not fit the others.
        """
        train, test, validation, following = (_read(self._paths[name]) for name in (_TRAIN, _TEST, _VALIDATION, _NEXT))
        _check_pair(train, test)
        _check_pair(validation, following)
        users = _users(train, validation)
        return _split_rows(train, test, validation, following, users)


def _split_rows(
    train: _ItemFile, test: _ItemFile, validation: _ItemFile, following: _ItemFile, users: Places
) -> SplitRows:
    """Join each user's items to one sequence; `users` are those of the lines of `validation`."""
    num_users, files = len(train.sizes), (train, validation, following, test)
    every = pa.chunked_array([file.items for file in files]).unify_dictionaries()
    codes: list[Codes] = [chunk.indices.to_numpy() for chunk in every.iterchunks()]
    last_of_validation = codes[1][np.cumsum(validation.sizes) - 1]
    all_users = np.arange(num_users)
    owners = np.concatenate((np.repeat(all_users, train.sizes), users, users, all_users)).astype(np.int32)
    items = np.concatenate((codes[0], last_of_validation, codes[2], codes[3]))
    order = np.argsort(owners, kind="stable")
    names = every.chunk(0).dictionary
    events = Events(owners[order], items[order], np.arange(len(items), dtype=np.int64), names)
    histories, item_names = histories_of(events)
    starts, ends = histories.offsets[:-1], histories.offsets[1:]
    rows = {
        TRAIN: train_rows(starts, starts + train.sizes),
        VALIDATION: Rows(starts, ends - 2, ends - 1).take(np.sort(users)),
        TEST: Rows(starts, ends - 1, ends),
    }
    return SplitRows(histories, item_names, rows, starts + train.sizes, num_users - len(users))


def _find(folder: str, names: tuple[str, ...]) -> dict[str, str]:
    filesystem, root = fsspec.core.url_to_fs(folder)
    if not filesystem.isdir(root):
        raise DataError(f"{folder} is not a folder; set `input` to the folder of the split's files")
    local = "file" in filesystem.protocol
    listed = sorted(cast(list[str], filesystem.ls(root, detail=False)), reverse=True)
    paths = {posixpath.basename(path).removesuffix(".gz").removesuffix(".txt"): path for path in listed}
    missing = [name for name in names if name not in paths]
    if missing:
        raise DataError(f"{folder} holds no {missing[0]}.txt (or {missing[0]}.txt.gz), which belongs to a ready split")
    return {name: path if local else filesystem.unstrip_protocol(path) for name, path in paths.items()}


def _read(path: str) -> _ItemFile:
    words: list[pa.Array] = []
    sizes: list[Places] = []
    texts: list[pa.Array] = []
    for block in read_lines(path):
        lines = split_words(block)
        if lines.misfits:
            line, reason = min(lines.misfits.items())
            raise DataError(f"{path}:{block.first_line + line}: {reason}; every line of a ready split is a user's")
        offsets = pa.array(np.concatenate(([0], lines.ends)), pa.int32())
        words.append(lines.words.cast(pa.large_string()))
        sizes.append(np.diff(lines.ends, prepend=0))
        texts.append(pc.binary_join(pa.ListArray.from_arrays(offsets, lines.words), " ").cast(pa.large_string()))
    return _ItemFile(path, coded(pa.concat_arrays(words)), np.concatenate(sizes), pa.concat_arrays(texts))


def _check_pair(inputs: _ItemFile, outputs: _ItemFile) -> None:
    if len(inputs.sizes) != len(outputs.sizes):
        raise DataError(
            f"{inputs.path} has {len(inputs.sizes)} lines and {outputs.path} has {len(outputs.sizes)}; "
            "line by line they belong to the same user"
        )
    several = np.flatnonzero(outputs.sizes != 1)
    if len(several):
        line = int(several[0])
        raise DataError(
            f"{outputs.path}:{line + 1}: found {outputs.sizes[line]} items; a line holds one, the next item"
        )


def _users(train: _ItemFile, validation: _ItemFile) -> Places:
    """Find the user of each line of `validation`: the one with the same items but the last."""
    begins = pc.replace_substring_regex(validation.texts, r" ?[^ ]+$", "")
    users = pc.index_in(begins, train.texts)
    lost = np.flatnonzero(np.asarray(users.is_null()))
    if len(lost):
        raise DataError(
            f"{validation.path}:{int(lost[0]) + 1}: no line of {train.path} has these items without the last one"
        )
    first = users.to_numpy(zero_copy_only=False).astype(np.int64)
    last = len(train.texts) - 1 - pc.index_in(begins, train.texts[::-1]).to_numpy(zero_copy_only=False)
    shared = np.flatnonzero(first != last)
    if len(shared):
        line = int(shared[0])
        raise DataError(
            f"{validation.path}:{line + 1}: lines {first[line] + 1} and {int(last[line]) + 1} of {train.path} are the "
            "same, so that the user is not known; leave the line out"
        )
    found, counts = np.unique(first, return_counts=True)
    if (counts > 1).any():
        line = int(found[counts > 1][0])
        raise DataError(f"{train.path}:{line + 1}: {validation.path} has several lines of this user; leave one")
    return first
