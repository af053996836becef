"""How long a head takes, measured where it runs."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from raysparse.config import Config

BATCH_SIZES = (1, 1024)
"""A single request, and a full batch."""
_HISTORIES = (1, 64)
"""The same of histories, each as long as they come."""
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
    sizes = (num_dense, num_features, embedding_dim)
    return _measured(head, lambda: {size: latency_us(head, size, sizes) for size in BATCH_SIZES})


def measure_encoder(encoder: nn.Module, length: int, embedding_dim: int) -> HeadCost:
    """Count and time an encoder on histories of `length` items; any process, takes 0.1 s for each number of them."""
    return _measured(
        encoder, lambda: {count: encoder_latency_us(encoder, count, (length, embedding_dim)) for count in _HISTORIES}
    )


def encoder_latency_us(encoder: nn.Module, count: int, sizes: tuple[int, int]) -> float:
    """Median microseconds of so many histories, by their length and the table's width; any process, 0.1 s."""
    length, embedding_dim = sizes
    device = next(encoder.parameters()).device
    offsets = torch.arange(count + 1, device=device) * length
    return _median_us(encoder, torch.zeros(count * length, embedding_dim, device=device), offsets)


def _measured(head: nn.Module, measure: Callable[[], dict[int, float]]) -> HeadCost:
    parameters = list(head.parameters())
    threads, training = torch.get_num_threads(), head.training
    torch.set_num_threads(1)
    head.eval()
    try:
        latency = measure()
    finally:
        torch.set_num_threads(threads)
        head.train(training)
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
    return _median_us(head, dense, pooled)


def _median_us(module: nn.Module, *inputs: Tensor) -> float:
    times: list[float] = []
    with torch.inference_mode():
        module(*inputs)
        while len(times) < _LEAST_CALLS or sum(times) < _SECONDS:
            started = time.perf_counter()
            module(*inputs)
            if inputs[0].device.type == "cuda":
                torch.cuda.synchronize(inputs[0].device)
            times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)
