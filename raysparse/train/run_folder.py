"""The run folder: everything a run leaves behind, on a disk or an object store.

job.yaml  history.jsonl  summary.json  plan.json  checkpoints/  report.html, and `owner`, who writes here now: the
workers of a driver that died may live on for a while. It is there from the beginning to the end of a run, which tells
its folder from one that a user keeps a job.yaml in.
"""

import json
import posixpath
import uuid
from collections.abc import Callable
from typing import Any, Literal

import fsspec

from raysparse.errors import ConfigError, DataError, RunTakenError

JOB = "job.yaml"
HISTORY = "history.jsonl"
SUMMARY = "summary.json"
PLAN = "plan.json"
CHECKPOINTS = "checkpoints"
OWNER = "owner"

_PARTIAL = ".partial"
_SUPERNET = "supernet"
_MADE = (
    {JOB, HISTORY, SUMMARY, PLAN, CHECKPOINTS, OWNER, "report.html"}
    | {_SUPERNET, "cache", "journal.jsonl", "relaxed.json", "contest", "finalists", "baselines", "results.json"}
    | {"phases.json", "trials", "trials.jsonl"}
)
"""What runs, searches and tune runs make in their folders."""

RunMode = Literal["new", "resume", "fresh"]
"""Whether a run is to begin, to go on (or begin), or to replace the one that is there."""


class RunFolder:
    """Reads and writes the small files of a run. Any process; writing is for the driver and rank 0.

    One that is given an `owner` writes only for as long as the folder is that one's.
    """

    def __init__(self, path: str, owner: str | None = None) -> None:
        self.path = path
        self._owner = owner
        self.filesystem, self.root = fsspec.core.url_to_fs(path)

    def url(self, *names: str) -> str:
        """Full path of something in the folder."""
        return posixpath.join(self.path, *names)

    def exists(self, name: str = "") -> bool:
        """Whether the folder, or a file of it, is there."""
        return bool(self.filesystem.exists(posixpath.join(self.root, name) if name else self.root))

    def read(self, name: str) -> str:
        """Text of a file; OSError where it is not there."""
        return self.filesystem.cat_file(posixpath.join(self.root, name)).decode()

    def write(self, name: str, text: str) -> None:
        """Replace a file: it is there whole, old or new, at any moment."""
        self.require_ownership()
        self.filesystem.makedirs(self.root, exist_ok=True)
        path = posixpath.join(self.root, name)
        self.filesystem.pipe_file(path + _PARTIAL, text.encode())
        self.filesystem.mv(path + _PARTIAL, path)

    def open(self, job: str, mode: RunMode, refuse_changes: Callable[[str, str], None]) -> None:
        """Write the resolved job of a run that begins or goes on here; driver.

        `refuse_changes` is called with the text of the job that is there and its place. ConfigError where the
        folder exists and `mode` is `new`, and where it holds something else, or a run that is to be deleted holds
        what no run makes.
        """
        names = self._names()
        if names and not _are_of_a_run(names):
            raise ConfigError(f"run_folder {self.path} holds other things than a run; choose another folder")
        if JOB in names and mode == "new":
            raise ConfigError(
                f"the run {self.path} exists already; --resume goes on with it, --fresh deletes it and starts anew"
            )
        if JOB in names and mode == "resume":
            refuse_changes(self.read(JOB), self.url(JOB))
        elif names:
            self._empty(names)
        if not self.exists(OWNER):
            self.claim()
        self.write(JOB, job)

    def _names(self) -> set[str]:
        """Names of what is in the folder; empty where there is none."""
        if not self.exists():
            return set()
        return {posixpath.basename(path.rstrip("/")) for path in self.filesystem.ls(self.root, detail=False)}

    def _empty(self, names: set[str]) -> None:
        """Delete all but the owner, the job first: without it the rest of a run is never gone on with."""
        others = sorted(name for name in names if name.removesuffix(_PARTIAL) not in _MADE)
        if others:
            raise ConfigError(
                f"run_folder {self.path} holds {', '.join(others)} beside the run that is to be deleted; move that "
                "away, or choose another folder"
            )
        self.claim()  # who still writes here has to end before
        for name in sorted(names - {OWNER, OWNER + _PARTIAL}, key=lambda name: name != JOB):
            self.filesystem.rm(posixpath.join(self.root, name), recursive=True)

    def claim(self) -> str:
        """Take the folder over from whoever writes there; returns the new owner. Driver."""
        owner = uuid.uuid4().hex
        self.write(OWNER, owner)
        return owner

    def held(self) -> "RunFolder":
        """Return the folder as one that writes for as long as nobody else takes it over; driver."""
        return RunFolder(self.path, self.read(OWNER))

    def require_ownership(self) -> None:
        """Raise RunTakenError where the folder has another owner by now."""
        if self._owner is None:
            return
        # A folder within one that begins anew is gone, and its owner with it.
        if not self.exists(OWNER) or self.read(OWNER) != self._owner:
            raise RunTakenError(
                f"the run {self.path} was taken over by another process of raysparse; this one ends, so that they do "
                "not write over each other"
            )

    def history(self) -> list[dict[str, Any]]:
        """The lines of the history; empty where there is none yet. DataError names a line that is no JSON."""
        if not self.exists(HISTORY):
            return []
        records: list[dict[str, Any]] = []
        for number, line in enumerate(self.read(HISTORY).splitlines(), start=1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise DataError(f"{self.url(HISTORY)}, line {number} is no JSON: {error}") from error
        return records

    def write_history(self, records: list[dict[str, Any]]) -> None:
        """Replace the history."""
        self.write(HISTORY, "".join(json.dumps(record) + "\n" for record in records))


def _are_of_a_run(names: set[str]) -> bool:
    # Searches of earlier versions have no owner.
    return OWNER in {name.removesuffix(_PARTIAL) for name in names} or {JOB, _SUPERNET} <= names
