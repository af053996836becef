"""A tensor as the whole job sees it, and the pieces of it that this rank holds."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """A box of a global tensor; `tensor` is live memory, so that writing into it restores it."""

    offsets: tuple[int, ...]
    tensor: Tensor


@dataclass(frozen=True)
class GlobalTensor:
    """Shape of the whole, and this rank's pieces; a tensor that every rank holds whole is `replicated`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: tuple[Piece, ...]
    replicated: bool = False


def replicated(tensor: Tensor) -> GlobalTensor:
    """A tensor that is the same on every rank."""
    return GlobalTensor(tuple(tensor.shape), tensor.dtype, (Piece((0,) * tensor.dim(), tensor),), replicated=True)
