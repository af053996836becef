"""The precision of matrix products, where it must not be what a job says for all others."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def highest_precision() -> Iterator[None]:
    """Take float32 products with all their digits, whatever `scaling.matmul_precision` says; in the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
