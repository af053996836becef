"""How long a head takes, measured where it runs."""

import statistics
import time

import torch
from torch import nn

from raysparse.config import Config

BATCH_SIZES = (1, 1024)
"""A single request, and a full batch."""
_SECONDS = 0.1
_LEAST_CALLS = 5


class HeadCost(Config):
    """What a head takes as it is, whatever its masks say: only what is really gone makes it cheaper."""

    parameters: int
    """Its numbers, masks included."""
    bytes: int
    """Of these, as they are kept."""
    latency_us: dict[int, float]
    """Median microseconds of a batch, by its rows, on one thread."""


def measure_head(head: nn.Module, num_dense: int, num_features: int, embedding_dim: int) -> HeadCost:
    """Count and time a head on its device; any process, takes 0.1 s for each batch size or so."""
    parameters = list(head.parameters())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        latency = {size: latency_us(head, size, (num_dense, num_features, embedding_dim)) for size in BATCH_SIZES}
    finally:
        torch.set_num_threads(threads)
    return HeadCost(
        parameters=sum(parameter.numel() for parameter in parameters),
        bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        latency_us=latency,
    )


def latency_us(head: nn.Module, batch_size: int, sizes: tuple[int, int, int]) -> float:
    """Median microseconds of a batch, by dense inputs, features and width of a feature; any process, 0.1 s."""
    num_dense, num_features, embedding_dim = sizes
    device = next(head.parameters()).device
    dense = torch.zeros(batch_size, num_dense, device=device)
    pooled = torch.zeros(batch_size, num_features, embedding_dim, device=device)
    times: list[float] = []
    with torch.inference_mode():
        head(dense, pooled)
        while len(times) < _LEAST_CALLS or sum(times) < _SECONDS:
            started = time.perf_counter()
            head(dense, pooled)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)
