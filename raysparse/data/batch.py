"""A batch: the rows of one step that one rank works on."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


@dataclass(frozen=True)
class Batch:
    """One rank's share of a step; every rank's share has the same number of rows B.

    Where the rows do not divide evenly the last rows are padding: weight 0, no ids, dense values 0.
    """

    dense: Tensor
    """`[B, I]` float32: a column per dense feature, then a 0/1 mark of missing values per optional one."""
    ids: KeyedJaggedTensor
    """A jagged list of table rows per id feature and row, features in the order of the schema."""
    labels: Tensor
    """`[B]` float32, 0 or 1."""
    weights: Tensor
    """`[B]` float32: 1 for a row, 0 for padding."""
    index: int
    """Number of the batch in its day, from 0."""
    num_rows: int
    """Rows of the batch on all ranks together, without padding."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its tensors on `device`; the same object where they are there already."""
        if self.dense.device == device:
            return self
        return replace(
            self,
            dense=self.dense.to(device, non_blocking=True),
            ids=self.ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            weights=self.weights.to(device, non_blocking=True),
        )
