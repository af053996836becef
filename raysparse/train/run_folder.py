"""The run folder: everything a run leaves behind, on a disk or an object store.

job.yaml  history.jsonl  summary.json  plan.json  checkpoints/  report.html
"""

import json
import posixpath
from typing import Any

import fsspec

from raysparse.errors import DataError

JOB = "job.yaml"
HISTORY = "history.jsonl"
SUMMARY = "summary.json"
PLAN = "plan.json"
CHECKPOINTS = "checkpoints"


class RunFolder:
    """Reads and writes the small files of a run. Any process; writing is for the driver and rank 0."""

    def __init__(self, path: str) -> None:
        self.path = path
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
        self.filesystem.makedirs(self.root, exist_ok=True)
        path = posixpath.join(self.root, name)
        self.filesystem.pipe_file(path + ".partial", text.encode())
        self.filesystem.mv(path + ".partial", path)

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
