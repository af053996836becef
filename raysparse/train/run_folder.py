"""The run folder: everything a run leaves behind, on a disk or an object store.

job.yaml  history.jsonl  summary.json  plan.json  checkpoints/  report.html, and `owner`, who writes here now: the
workers of a driver that died may live on for a while.
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
        self.filesystem.pipe_file(path + ".partial", text.encode())
        self.filesystem.mv(path + ".partial", path)

    def open(self, job: str, mode: RunMode, refuse_changes: Callable[[str, str], None]) -> None:
        """Write the resolved job of a run that begins or goes on here; driver.

        `refuse_changes` is called with the text of the job that is there and its place. ConfigError where the
        folder exists and `mode` is `new`, and where it holds something else.
        """
        if self.exists() and self.filesystem.ls(self.root):
            if not self.exists(JOB):
                raise ConfigError(f"run_folder {self.path} holds other things than a run; choose another folder")
            if mode == "new":
                raise ConfigError(
                    f"the run {self.path} exists already; --resume goes on with it, --fresh deletes it and starts anew"
                )
            if mode == "fresh":
                self.remove()
            else:
                refuse_changes(self.read(JOB), self.url(JOB))
        self.write(JOB, job)

    def claim(self) -> str:
        """Take the folder over from whoever writes there; returns the new owner. Driver."""
        owner = uuid.uuid4().hex
        self.write(OWNER, owner)
        return owner

    def require_ownership(self) -> None:
        """Raise RunTakenError where the folder has another owner by now."""
        if self._owner is not None and self.read(OWNER) != self._owner:
            raise RunTakenError(
                f"the run {self.path} was taken over by another `raysparse train`; this one ends, so that they do not "
                "write over each other"
            )

    def remove(self) -> None:
        """Delete the folder and all it holds."""
        self.filesystem.rm(self.root, recursive=True)

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
