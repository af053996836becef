"""The journal of a search: every scored choice, one JSON line each; all that a search remembers.

    {"journal": 1, "search": {...}}                                            first: which search this is
    {"number": 0, "generation": 0, "key": ..., "choice": {...}, "seconds": ..., "objectives": {...}}
    {"number": 2, "generation": 0, "key": ..., "choice": {...}, "seconds": ..., "error": "..."}

Lines stand in the order in which results arrived, and are on the disk before a searcher is told.
"""

import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from pydantic import Field, ValidationError, model_validator

from raysparse.config import Config, Tree, differences
from raysparse.errors import CheckpointError, RunTakenError
from raysparse.search.population import Proposal
from raysparse.search.space import C

VERSION = 1


class Entry(Config):
    """The result of one trial."""

    number: int = Field(ge=0)
    """Of its proposal."""
    generation: int = Field(ge=0)
    """Of its proposal."""
    key: str
    """Of the choice's canonical form."""
    choice: dict[str, Any]
    """The choice as drawn; the space parses it."""
    seconds: float = Field(ge=0)
    """Wall time of the trial."""
    objectives: dict[str, float] | None = None
    """By name; None where the trial failed."""
    error: str | None = None
    """What the trial failed of; None where it has a score."""

    @model_validator(mode="after")
    def _score_or_error(self) -> Self:
        if (self.objectives is None) == (self.error is None):
            raise ValueError("either objectives or error, and not both")
        return self


class Journal:
    """An append-only file of entries, open for one writer. Driver; a local or a shared file system."""

    def __init__(self, path: Path, file: BinaryIO, entries: list[Entry]) -> None:
        self.path = path
        self.entries = entries
        self._file = file

    @classmethod
    def open(cls, path: Path, header: Tree) -> Self:
        """Open the journal of a search, or begin it; `header` tells searches apart and is JSON.

        It should hold all that scores and proposals depend on: space, checkpoint, seed, objectives, searcher.
        A last line that a kill has torn is cut off. CheckpointError where another line is damaged, or where the
        journal belongs to another search; RunTakenError while another process writes it.
        """
        first_line = _line({"journal": VERSION, "search": header})
        file = _open_locked(path)
        try:
            journal = cls(path, file, [])
            journal._take_over(file.read(), first_line)
        except BaseException:
            file.close()
            raise
        return journal

    def record(self, proposal: Proposal[C], outcome: Mapping[str, float] | str, seconds: float) -> Entry:
        """Write down the result of a trial: its objectives, or the text of its error; on the disk on return.

        Objectives that are not finite are no score: they are written as an error. Tell the searcher what the
        returned entry holds. CheckpointError where the disk does not take it.
        """
        if any(entry.number == proposal.number for entry in self.entries):
            raise ValueError(f"trial {proposal.number} stands in {self.path} already")
        objectives = None if isinstance(outcome, str) else {name: float(value) for name, value in outcome.items()}
        error = outcome if isinstance(outcome, str) else _fault_of(objectives or {})
        entry = Entry(
            number=proposal.number,
            generation=proposal.generation,
            key=proposal.key,
            choice=proposal.choice.model_dump(mode="json"),
            seconds=seconds,
            objectives=objectives if error is None else None,
            error=error,
        )
        tree = entry.model_dump(mode="json")
        del tree["objectives" if entry.objectives is None else "error"]
        self._append(_line(tree))
        self.entries.append(entry)
        return entry

    def close(self) -> None:
        """Let another process write."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_over(self, content: bytes, first_line: bytes) -> None:
        whole = content[: content.rfind(b"\n") + 1]
        if whole:
            header, self.entries = _parse(self.path, whole)
            _require_same_search(self.path, header, json.loads(first_line)["search"])
        elif not first_line.startswith(content):
            raise CheckpointError(f"{self.path} is no journal of this search; move it away to start anew")
        if len(content) > len(whole):
            self._file.truncate(len(whole))
        if not whole:
            self._append(first_line)
            _sync_folder(self.path.parent)

    def _append(self, line: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            rest = line
            while rest:
                rest = rest[os.write(self._file.fileno(), rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)  # half a line would damage the journal for the lines after it
            raise CheckpointError(
                f"cannot write {self.path}: {error}; the search can go on once that is mended"
            ) from error


def read_journal(path: Path) -> tuple[Tree, list[Entry]]:
    """Return header and entries of a journal that may be growing; any process.

    CheckpointError where it is missing or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        raise CheckpointError(f"{path} holds no journal of a search")
    return _parse(path, whole)


def _open_locked(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise CheckpointError(f"cannot open {path}: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunTakenError(
            f"{path} is written by another search now; end that one, or choose another run folder"
        ) from None
    file.seek(0)
    return file


def _line(tree: Tree) -> bytes:
    return (json.dumps(tree, allow_nan=False) + "\n").encode()


def _fault_of(objectives: Mapping[str, float]) -> str | None:
    odd = [f"{name} = {value}" for name, value in objectives.items() if not math.isfinite(value)]
    return f"not finite: {', '.join(odd)}" if odd else None


def _parse(path: Path, whole: bytes) -> tuple[Tree, list[Entry]]:
    first, *lines = whole[:-1].split(b"\n")
    header = _parse_header(path, first)
    entries: list[Entry] = []
    numbers: dict[int, int] = {}
    keys: dict[str, int] = {}
    for line_number, line in enumerate(lines, start=2):
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(str(part) for part in fault["loc"])
            raise _damaged(path, line_number, f"{key}: {fault['msg']}" if key else fault["msg"]) from None
        before = numbers.get(entry.number, keys.get(entry.key))
        if before is not None:
            raise _damaged(path, line_number, f"it scores the choice of line {before} again")
        numbers[entry.number] = keys[entry.key] = line_number
        entries.append(entry)
    return header, entries


def _parse_header(path: Path, line: bytes) -> Tree:
    try:
        tree = json.loads(line)
    except ValueError as error:
        raise _damaged(path, 1, str(error)) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("search"), dict):
        raise _damaged(path, 1, "it does not say which search this is")
    if tree.get("journal") != VERSION:
        raise CheckpointError(f"{path} has version {tree.get('journal')}; this one reads version {VERSION}")
    return tree["search"]


def _damaged(path: Path, line_number: int, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}, line {line_number} is damaged: {reason}; mend it, delete it to score that choice again, "
        "or move the file away to start anew"
    )


def _require_same_search(path: Path, found: Tree, wanted: Tree) -> None:
    listed = "".join(f"\n  {key}: {there} there, {here} here" for key, there, here in differences(found, wanted))
    if listed:
        raise CheckpointError(
            f"{path} is the journal of another search:{listed}\n"
            "go on with the search as it was, or choose another run folder"
        )


def _sync_folder(folder: Path) -> None:
    # The file's name lies in the folder, which is synced on its own.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
