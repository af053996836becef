"""Looked-up features of some rows, kept beside the supernet that they were looked up for.

cache/supernet.safetensors, manifest.json   as of every cache
      tuning/rank-00000-00000.*.npy         rows on which a trial tunes the head, by the rank that wrote them, in pieces
      validation/rank-00000- ...            rows on which it is scored

A piece is four files: dense, pooled, labels, and the numbers of the rows, which are the same for any number of ranks.
A trial maps them into its memory: it costs no look-up, and no copy per trial.
"""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysparse.errors import CheckpointError
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.shape import SupernetShape, supernet_shape
from raysparse.models.nasrec.supernet import shape_of
from raysparse.search.supernet_cache import ANEW, MANIFEST, Manifest, SupernetCache, SupernetCacheWriter

Part = Literal["tuning", "validation"]
PARTS: tuple[Part, ...] = ("tuning", "validation")
ROWS_PER_PIECE = 65_536
"""Rows that a rank holds in memory before it writes them: 107 MB of 26 features of width 16."""
_COLUMNS = ("dense", "pooled", "labels", "numbers")


class CacheManifest(Manifest):
    """What a cache belongs to."""

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


class FeatureCache(SupernetCache[CacheManifest]):
    """Reads a cache of rows."""

    manifest_class = CacheManifest

    @property
    def shape(self) -> SupernetShape:
        """The shape of the shared weights."""
        return shape_of(self.manifest.space, self.manifest.num_dense, self.manifest.num_features)

    def network(self, device: torch.device) -> NASRecNetwork:
        """Load the shared weights."""
        with torch.device("meta"):
            network = NASRecNetwork(supernet_shape(self.shape))
        network.load_state_dict(self.weights(str(device)), assign=True)
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
                f"{self.folder / part} holds {found:,} rows, {MANIFEST} says {self.manifest.rows[part]:,}; {ANEW}"
            )
        return pieces


def _map(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="c")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; {ANEW}") from error


class CacheWriter(SupernetCacheWriter):
    """Writes one rank's rows, and on rank 0 the weights and the manifest. Every rank, in a folder that all reach."""

    def clear(self) -> None:
        """Delete a cache that is there; rank 0 alone, before any rank writes."""
        self.clear_all(PARTS)

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
        rows = {part: self._num_rows(part) for part in PARTS}
        self.write_end(
            weights,
            lambda digest: CacheManifest(
                supernet=digest, space=space, num_dense=sizes[0], num_features=sizes[1], rows=rows, days=days
            ),
        )

    def _num_rows(self, part: Part) -> int:
        return sum(
            self._rows_of(path) for path in self._filesystem.glob(posixpath.join(self._root, part, "*.labels.npy"))
        )

    def _rows_of(self, path: str) -> int:
        with self._filesystem.open(path, "rb") as file:
            np.lib.format.read_magic(file)
            return np.lib.format.read_array_header_1_0(file)[0][0]


def batches_of(pieces: Sequence[Rows], size: int) -> Iterator[Rows]:
    """Yield the rows in batches of at most `size`, without copying them."""
    for piece in pieces:
        for start in range(0, len(piece), size):
            stop = start + size
            yield Rows(*(getattr(piece, column)[start:stop] for column in _COLUMNS))


def in_order(pieces: Sequence[Rows], device: torch.device) -> Rows:
    """Return the rows as one, by their numbers, copied to a device: the ranks that wrote them do not matter."""
    numbers = torch.cat([piece.numbers for piece in pieces])
    rows = numbers.argsort()
    dense, pooled, labels = (
        torch.cat([getattr(piece, column) for piece in pieces])[rows].to(device)
        for column in ("dense", "pooled", "labels")
    )
    return Rows(dense, pooled, labels, numbers[rows])
