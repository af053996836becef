"""The folder that a preparation writes to: half of a data set is never taken for a whole one.

    OUTPUT                  a new data set is written here, under the mark `_unfinished`
    OUTPUT.preparing        one that is to replace a finished data set is written here and swapped in at the end
    OUTPUT.replaced         the old one, while it is swapped out

An earlier preparation that broke off leaves its mark, and is cleaned; anything else that is in the way is refused. The
mark says whose it is: where two preparations write to the same folder, the one that came last has it, and the other
ends.
"""

import posixpath
import uuid
from dataclasses import dataclass
from typing import cast

import fsspec
from fsspec import AbstractFileSystem

from raysparse.data.dataset import MANIFEST
from raysparse.errors import DataError

UNFINISHED = "_unfinished"
"""Marks a folder that a preparation has begun and not finished."""


@dataclass(frozen=True)
class Staging:
    """Where a data set is written, and where it will lie."""

    path: str
    output: str
    owner: str

    def require_ownership(self) -> None:
        """Raise DataError where another preparation has taken the folder over (driver)."""
        filesystem, root = fsspec.core.url_to_fs(self.path)
        mark = posixpath.join(root, UNFINISHED)
        if not filesystem.exists(mark) or self.owner not in filesystem.cat_file(mark).decode():
            raise DataError(
                f"{self.path} was taken over by another preparation of the same data set; this one ends: let that one "
                "finish, and take its data set"
            )

    def finish(self) -> None:
        """Show the written data set (driver), in place of the old one where there is one; DataError as above."""
        self.require_ownership()
        filesystem, root = fsspec.core.url_to_fs(self.path)
        _, output = fsspec.core.url_to_fs(self.output)
        if self.path != self.output and "file" not in filesystem.protocol:
            _replace_by_copies(filesystem, root, output)
            return
        filesystem.rm_file(posixpath.join(root, UNFINISHED))
        if self.path == self.output:
            return
        replaced = _replaced(output)
        filesystem.mv(output, replaced, recursive=True)
        filesystem.mv(root, output, recursive=True)
        _discard(filesystem, replaced)


def claim(output: str, overwrite: bool) -> Staging:
    """Take a folder for a new data set (driver); DataError where something is in the way."""
    filesystem, root = fsspec.core.url_to_fs(output.rstrip("/"))
    # A worker's working directory may be another one: a relative path is made whole here.
    output = root if "file" in filesystem.protocol else output.rstrip("/")
    _undo_swap(filesystem, root)
    finished = filesystem.exists(posixpath.join(root, MANIFEST))
    if finished and not overwrite:
        raise DataError(
            f"{output} holds a finished data set; write to another folder, or allow it to be replaced with --overwrite"
        )
    path = output + ".preparing" if finished else output
    _, target = fsspec.core.url_to_fs(path)
    _clean(filesystem, target, path)
    filesystem.makedirs(target, exist_ok=True)
    owner = uuid.uuid4().hex
    _mark(filesystem, target, owner)
    return Staging(path, output, owner)


def _replace_by_copies(filesystem: AbstractFileSystem, root: str, output: str) -> None:
    """Move a data set where no folder can be renamed: nobody finds a manifest there before all that it names."""
    manifest = posixpath.join(output, MANIFEST)
    _mark(filesystem, output)
    filesystem.rm_file(manifest)
    for path in cast(list[str], filesystem.ls(output, detail=False)):
        if posixpath.basename(path.rstrip("/")) != UNFINISHED:
            filesystem.rm(path, recursive=True)
    for path in cast(list[str], filesystem.find(root)):
        name = posixpath.relpath(path, root)
        if name not in (MANIFEST, UNFINISHED):
            filesystem.cp_file(path, posixpath.join(output, name))
    filesystem.cp_file(posixpath.join(root, MANIFEST), manifest)
    filesystem.rm_file(posixpath.join(output, UNFINISHED))
    _remove(filesystem, root)


def _undo_swap(filesystem: AbstractFileSystem, root: str) -> None:
    """Put back a data set that was moved out by a swap which broke off before the new one was moved in."""
    replaced = _replaced(root)
    if not filesystem.exists(replaced):
        return
    whole = filesystem.exists(posixpath.join(replaced, MANIFEST))
    if not filesystem.exists(posixpath.join(root, MANIFEST)):
        if whole:
            filesystem.mv(replaced, root, recursive=True)
    elif whole:
        _discard(filesystem, replaced)
    else:
        _clean(filesystem, replaced, replaced)


def _clean(filesystem: AbstractFileSystem, root: str, shown: str) -> None:
    """Empty a folder that bears our mark; DataError for any other that holds something."""
    if not filesystem.exists(root):
        return
    if not filesystem.isdir(root):
        raise DataError(f"{shown} is a file; give a folder for the data set")
    if filesystem.exists(posixpath.join(root, UNFINISHED)):
        _remove(filesystem, root)
    elif filesystem.ls(root, detail=False):
        raise DataError(
            f"{shown} is not empty and holds neither a data set nor a half-written one; "
            "give another folder for the data set, or empty this one"
        )


def _discard(filesystem: AbstractFileSystem, root: str) -> None:
    _mark(filesystem, root)
    _remove(filesystem, root)


def _remove(filesystem: AbstractFileSystem, root: str) -> None:
    """Remove a marked folder, the mark last: what is left after a break is still known as ours."""
    for path in cast(list[str], filesystem.ls(root, detail=False)):
        if posixpath.basename(path) != UNFINISHED:
            filesystem.rm(path, recursive=True)
    filesystem.rm(root, recursive=True)


def _mark(filesystem: AbstractFileSystem, root: str, owner: str = "") -> None:
    text = f"written by a preparation of raysparse, which has not finished\n{owner}\n"
    filesystem.pipe_file(posixpath.join(root, UNFINISHED), text.encode())


def _replaced(root: str) -> str:
    return root + ".replaced"
