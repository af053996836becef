"""Looked-up features of some rows, kept beside the supernet that they were looked up for.

cache/supernet.safetensors             the shared weights
      tuning/rank-00000-00000.*.npy    rows on which a trial tunes the head, by the rank that wrote them, in pieces
      validation/rank-00000- ...       rows on which it is scored
      manifest.json                    what they belong to, written last

A piece is four files: dense, pooled, labels, and the numbers of the rows, which are the same for any number of ranks.
A trial maps them into its memory: it costs no look-up, and no copy per trial.
"""

import hashlib
import json
import posixpath
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from raysparse.config import Config, check
from raysparse.errors import CheckpointError, ConfigError
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.shape import SupernetShape, supernet_shape
from raysparse.models.nasrec.supernet import shape_of

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "supernet.safetensors"
Part = Literal["tuning", "validation"]
PARTS: tuple[Part, ...] = ("tuning", "validation")
ROWS_PER_PIECE = 65_536
"""Rows that a rank holds in memory before it writes them: 107 MB of 26 features of width 16."""
_COLUMNS = ("dense", "pooled", "labels", "numbers")


class CacheManifest(Config):
    """What a cache belongs to."""

    format_version: int
    supernet: str
    """Digest of the shared weights."""
    space: CTRSpaceConfig
    num_dense: int
    num_features: int
    rows: dict[str, int]
    """Rows of each part."""
    days: dict[str, tuple[str, ...]]
    """Days of each part, in the order in which their rows are numbered."""


@dataclass(frozen=True)
class Rows:
    """Rows whose ids have been looked up."""

    dense: Tensor
    """`[N, I]`"""
    pooled: Tensor
    """`[N, F, D]`"""
    labels: Tensor
    """`[N]`"""
    numbers: Tensor
    """`[N]` int64: the rows' places in the part, from 0, rising."""

    def __len__(self) -> int:
        return len(self.labels)


class FeatureCache:
    """Reads a cache. Any process; a remote one is copied to the machine once per reader."""

    def __init__(self, folder: Path, manifest: CacheManifest, copy: tempfile.TemporaryDirectory[str] | None = None):
        """Read from a local folder, which is deleted with the reader where it is a copy."""
        self.folder = folder
        self.manifest = manifest
        self._copy = copy

    @classmethod
    def open(cls, url: str) -> "FeatureCache":
        """Open a cache that is whole; CheckpointError where it is not, or where its parts do not belong together."""
        filesystem, root = fsspec.core.url_to_fs(url)
        manifest = _read_manifest(filesystem, root, url)
        folder, copy = Path(root), None
        if "file" not in filesystem.protocol:
            copy = tempfile.TemporaryDirectory(prefix="raysparse-cache-")
            folder = Path(copy.name)
            filesystem.get(root + "/", str(folder) + "/", recursive=True)
        if not (folder / WEIGHTS).exists():
            raise CheckpointError(f"{url} holds no {WEIGHTS}: {_ANEW}")
        found = digest_of(folder / WEIGHTS)
        if found != manifest.supernet:
            raise CheckpointError(
                f"{url} was looked up for the supernet {manifest.supernet}, and {WEIGHTS} beside it is {found}: the "
                f"cache belongs to another checkpoint; {_ANEW}"
            )
        return cls(folder, manifest, copy)

    @property
    def shape(self) -> SupernetShape:
        """The shape of the shared weights."""
        return shape_of(self.manifest.space, self.manifest.num_dense, self.manifest.num_features)

    def network(self, device: torch.device) -> NASRecNetwork:
        """Load the shared weights."""
        with torch.device("meta"):
            network = NASRecNetwork(supernet_shape(self.shape))
        network.load_state_dict(load_file(self.folder / WEIGHTS, device=str(device)), assign=True)
        return network.requires_grad_(False)

    def rows(self, part: Part, limit: int | None = None) -> list[Rows]:
        """Map the first rows of a part, `limit` of them or all, in the pieces in which ranks wrote them.

        CheckpointError where files are missing or damaged.
        """
        pieces: list[Rows] = []
        found = 0
        for path in sorted((self.folder / part).glob("*.labels.npy")):
            columns = [_map(path.with_name(path.name.replace("labels", column))) for column in _COLUMNS]
            found += len(columns[0])
            count = len(columns[0]) if limit is None else int(np.searchsorted(columns[-1], limit))
            if count:
                pieces.append(Rows(*(torch.from_numpy(column[:count]) for column in columns)))
        if found != self.manifest.rows[part]:
            raise CheckpointError(
                f"{self.folder / part} holds {found:,} rows, {MANIFEST} says {self.manifest.rows[part]:,}; {_ANEW}"
            )
        return pieces


_ANEW = "delete the folder and run the search with --resume"


def _read_manifest(filesystem: fsspec.AbstractFileSystem, root: str, url: str) -> CacheManifest:
    try:
        tree = json.loads(filesystem.cat_file(posixpath.join(root, MANIFEST)))
        version = tree["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{url} has format version {version}, this version reads {FORMAT_VERSION}; {_ANEW}")
        return check(CacheManifest, tree, MANIFEST)
    except FileNotFoundError:
        raise CheckpointError(
            f"{url} holds no {MANIFEST}: its cache was not finished; train the supernet to its end, or start "
            "anew with --fresh"
        ) from None
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{MANIFEST} in {url} is damaged: {error}; {_ANEW}") from error


def _map(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="c")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; {_ANEW}") from error


class CacheWriter:
    """Writes one rank's rows, and on rank 0 the weights and the manifest. Every rank, in a folder that all reach."""

    def __init__(self, url: str, rank: int) -> None:
        self._filesystem, self._root = fsspec.core.url_to_fs(url)
        self._rank = rank

    def clear(self) -> None:
        """Delete a cache that is there, whole or not, and nothing else; rank 0 alone, before any rank writes."""
        # The manifest goes first: what is left behind by a kill is no whole cache.
        for name in (MANIFEST, WEIGHTS, *PARTS):
            path = posixpath.join(self._root, name)
            if self._filesystem.exists(path):
                self._filesystem.rm(path, recursive=True)

    def write_rows(self, part: Part, batches: Iterable[Rows]) -> None:
        """Write the rows of a part as they come."""
        waiting: list[Rows] = []
        num_pieces = 0
        for batch in batches:
            waiting.append(batch)
            if sum(map(len, waiting)) >= ROWS_PER_PIECE:
                self._write_piece(part, num_pieces, waiting)
                waiting, num_pieces = [], num_pieces + 1
        if any(map(len, waiting)):
            self._write_piece(part, num_pieces, waiting)

    def _write_piece(self, part: Part, number: int, batches: list[Rows]) -> None:
        folder = posixpath.join(self._root, part)
        self._filesystem.makedirs(folder, exist_ok=True)
        for column in _COLUMNS:
            values = torch.cat([getattr(batch, column) for batch in batches]).numpy()
            path = posixpath.join(folder, f"rank-{self._rank:05d}-{number:05d}.{column}.npy")
            with self._filesystem.open(path, "wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)

    def finish(
        self,
        weights: dict[str, Tensor],
        space: CTRSpaceConfig,
        sizes: tuple[int, int],
        days: dict[str, tuple[str, ...]],
    ) -> None:
        """Write weights and manifest; rank 0 alone, once all ranks have written their rows."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / WEIGHTS
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, local)
            digest = digest_of(local)
            with local.open("rb") as source, self._filesystem.open(posixpath.join(self._root, WEIGHTS), "wb") as file:
                shutil.copyfileobj(source, file)
        manifest = CacheManifest(
            format_version=FORMAT_VERSION,
            supernet=digest,
            space=space,
            num_dense=sizes[0],
            num_features=sizes[1],
            rows={part: self._num_rows(part) for part in PARTS},
            days=days,
        )
        path = posixpath.join(self._root, MANIFEST)
        self._filesystem.pipe_file(path + ".partial", manifest.model_dump_json(indent=1).encode())
        self._filesystem.mv(path + ".partial", path)

    def _num_rows(self, part: Part) -> int:
        return sum(
            self._rows_of(path) for path in self._filesystem.glob(posixpath.join(self._root, part, "*.labels.npy"))
        )

    def _rows_of(self, path: str) -> int:
        with self._filesystem.open(path, "rb") as file:
            np.lib.format.read_magic(file)
            return np.lib.format.read_array_header_1_0(file)[0][0]


def digest_of(path: Path) -> str:
    """Return the first 16 digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def batches_of(pieces: Sequence[Rows], size: int) -> Iterator[Rows]:
    """Yield the rows in batches of at most `size`, without copying them."""
    for piece in pieces:
        for start in range(0, len(piece), size):
            stop = start + size
            yield Rows(*(getattr(piece, column)[start:stop] for column in _COLUMNS))
