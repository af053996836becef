"""What is kept of a supernet for the trials of a search: its weights, what belongs to them, and a manifest.

cache/supernet.safetensors   the shared weights
      ...                    what has been looked up with them, by kind of cache
      manifest.json          what they belong to, written last
"""

import hashlib
import json
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, Self, TypeVar

import fsspec
from safetensors.torch import load_file, save_file
from torch import Tensor

from raysparse.config import Config, check
from raysparse.errors import CheckpointError, ConfigError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "supernet.safetensors"
ANEW = "delete the folder and run the search with --resume"
"""What to do with a cache that is not whole."""


class Manifest(Config):
    """What a cache belongs to."""

    format_version: int = FORMAT_VERSION
    supernet: str
    """Digest of the shared weights."""


M = TypeVar("M", bound=Manifest)


class SupernetCache(Generic[M]):
    """Reads a cache. Any process; a remote one is copied to the machine once per reader."""

    manifest_class: type[M]

    def __init__(self, folder: Path, manifest: M, copy: tempfile.TemporaryDirectory[str] | None = None):
        """Read from a local folder, which is deleted with the reader where it is a copy."""
        self.folder = folder
        self.manifest = manifest
        self._copy = copy

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a cache that is whole; CheckpointError where it is not, or where its parts do not belong together."""
        filesystem, root = fsspec.core.url_to_fs(url)
        manifest = _read_manifest(filesystem, root, url, cls.manifest_class)
        folder, copy = Path(root), None
        if "file" not in filesystem.protocol:
            copy = tempfile.TemporaryDirectory(prefix="raysparse-cache-")
            folder = Path(copy.name)
            filesystem.get(root + "/", str(folder) + "/", recursive=True)
        if not (folder / WEIGHTS).exists():
            raise CheckpointError(f"{url} holds no {WEIGHTS}: {ANEW}")
        found = digest_of(folder / WEIGHTS)
        if found != manifest.supernet:
            raise CheckpointError(
                f"{url} was looked up for the supernet {manifest.supernet}, and {WEIGHTS} beside it is {found}: the "
                f"cache belongs to another checkpoint; {ANEW}"
            )
        return cls(folder, manifest, copy)

    def weights(self, device: str = "cpu") -> dict[str, Tensor]:
        """Load the shared weights by name."""
        return load_file(self.folder / WEIGHTS, device=device)


class SupernetCacheWriter:
    """Writes the parts of a cache that are the same for all kinds. Every rank, in a folder that all reach."""

    def __init__(self, url: str, rank: int) -> None:
        self._filesystem, self._root = fsspec.core.url_to_fs(url)
        self._rank = rank

    def clear_all(self, parts: Iterable[str]) -> None:
        """Delete a cache that is there, whole or not, and nothing else; rank 0 alone, before any rank writes."""
        # The manifest goes first: what is left behind by a kill is no whole cache.
        for name in (MANIFEST, WEIGHTS, *parts):
            path = posixpath.join(self._root, name)
            if self._filesystem.exists(path):
                self._filesystem.rm(path, recursive=True)

    def write_end(self, weights: dict[str, Tensor], manifest_of: Callable[[str], Manifest]) -> None:
        """Write the weights, and the manifest made of their digest; rank 0 alone, once all ranks have written."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / WEIGHTS
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, local)
            digest = digest_of(local)
            with local.open("rb") as source, self._filesystem.open(posixpath.join(self._root, WEIGHTS), "wb") as file:
                shutil.copyfileobj(source, file)
        path = posixpath.join(self._root, MANIFEST)
        self._filesystem.pipe_file(path + ".partial", manifest_of(digest).model_dump_json(indent=1).encode())
        self._filesystem.mv(path + ".partial", path)


def digest_of(path: Path) -> str:
    """Return the first 16 digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read_manifest(filesystem: fsspec.AbstractFileSystem, root: str, url: str, kind: type[M]) -> M:
    try:
        tree = json.loads(filesystem.cat_file(posixpath.join(root, MANIFEST)))
        version = tree["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{url} has format version {version}, this version reads {FORMAT_VERSION}; {ANEW}")
        return check(kind, tree, MANIFEST)
    except FileNotFoundError:
        raise CheckpointError(
            f"{url} holds no {MANIFEST}: its cache was not finished; train the supernet to its end, or start "
            "anew with --fresh"
        ) from None
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{MANIFEST} in {url} is damaged: {error}; {ANEW}") from error
