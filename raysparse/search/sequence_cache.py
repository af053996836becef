"""The table of items, kept beside the encoder's shared weights.

cache/supernet.safetensors, manifest.json        as of every cache
      items/rows-000000000000-columns-0000.npy   a box of the table, by its first row and column

A trial reads the histories from the data set, and their items' rows from the table.
"""

import posixpath
import re

import numpy as np
import torch
from torch import Tensor

from raysparse.errors import CheckpointError
from raysparse.models.sasrec.config import SoftmaxConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.models.sasrec.supernet import SASRecSupernet, SASRecSupernetConfig
from raysparse.search.supernet_cache import ANEW, Manifest, SupernetCache, SupernetCacheWriter
from raysparse.sharding.tables import TableShard

_ITEMS = "items"
_BOX = re.compile(r"rows-(\d+)-columns-(\d+)\.npy")


class SequenceManifest(Manifest):
    """What a cache belongs to."""

    space: SASRecSpaceConfig
    shape: tuple[int, int]
    """Rows and columns of the table."""


class SequenceCache(SupernetCache[SequenceManifest]):
    """Reads a cache of items."""

    manifest_class = SequenceManifest

    def supernet(self, device: torch.device, shared_loss: SoftmaxConfig | None = None) -> SASRecSupernet:
        """Load the shared weights, which learn no more; the loss is for those who ask what a step's would be."""
        with torch.device("meta"):
            network = SASRec(self.manifest.space.largest)
        network.load_state_dict(self.weights(str(device)), assign=True)
        with torch.device("meta"):
            supernet = SASRecSupernet(SASRecSupernetConfig(space=self.manifest.space, shared_loss=shared_loss))
        supernet.network = network
        return supernet.requires_grad_(False).eval()

    def items(self) -> Tensor:
        """Load the table `[M + 1, D]`; CheckpointError where boxes of it are missing or damaged."""
        table = torch.full(self.manifest.shape, torch.nan)
        for path in sorted((self.folder / _ITEMS).glob("*.npy")):
            found = _BOX.fullmatch(path.name)
            try:
                box = torch.from_numpy(np.load(path))
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{path} is damaged: {error}; {ANEW}") from error
            if found is not None:
                row, column = int(found[1]), int(found[2])
                table[row : row + box.shape[0], column : column + box.shape[1]] = box
        if table.isnan().any():
            raise CheckpointError(
                f"{self.folder / _ITEMS} holds a part of the table only, or one that is no number; {ANEW}"
            )
        return table


class SequenceCacheWriter(SupernetCacheWriter):
    """Writes one rank's boxes of the table, and on rank 0 the weights and the manifest. Every rank."""

    def clear(self) -> None:
        """Delete a cache that is there; rank 0 alone, before any rank writes."""
        self.clear_all([_ITEMS])

    def write_shard(self, shard: TableShard) -> None:
        """Write a box of the table."""
        folder = posixpath.join(self._root, _ITEMS)
        self._filesystem.makedirs(folder, exist_ok=True)
        path = posixpath.join(folder, f"rows-{shard.first_row:012d}-columns-{shard.first_column:04d}.npy")
        with self._filesystem.open(path, "wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(shard.weight.cpu().numpy()), allow_pickle=False)

    def finish(self, network: SASRec, space: SASRecSpaceConfig, shape: tuple[int, int]) -> None:
        """Write weights and manifest; rank 0 alone, once all ranks have written their boxes."""
        self.write_end(
            dict(network.state_dict()), lambda digest: SequenceManifest(supernet=digest, space=space, shape=shape)
        )
