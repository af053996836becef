"""How long a head takes, measured where it runs."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raysparse.config import Config

BATCH_SIZES = (1, 1024)
"""A single request, and a full batch."""
_HISTORIES = (1, 64)
"""The same of histories, each as long as they come."""
_SECONDS = 0.1
_LEAST_CALLS = 30
"""Fewer tell little of the slowest ones."""


@dataclass(frozen=True)
class Latency:
    """Microseconds of a call, on one device."""

    median_us: float
    p95_us: float
    """What one call in twenty exceeds."""


class HeadCost(Config):
    """What a head takes as it is, whatever its masks say: only what is really gone makes it cheaper."""

    parameters: int
    """Its numbers, masks included."""
    bytes: int
    """Of these, as they are kept."""
    latency_us: dict[int, float]
    """Median microseconds of a batch, by its rows, on one thread."""
    latency_p95_us: dict[int, float]
    """Microseconds that one batch in twenty exceeds, by its rows."""


def measure_head(head: nn.Module, num_dense: int, num_features: int, embedding_dim: int) -> HeadCost:
    """Count and time a head on its device; any process, takes 0.1 s or 30 calls for each batch size."""
    sizes = (num_dense, num_features, embedding_dim)
    return _measured(head, lambda: {size: head_latency(head, size, sizes) for size in BATCH_SIZES})


def measure_encoder(encoder: nn.Module, length: int, embedding_dim: int) -> HeadCost:
    """Count an encoder, and time it on all places of histories of `length` items; any process, 0.1 s or 30 calls."""
    return _measured(
        encoder, lambda: {count: encoder_latency(encoder, count, (length, embedding_dim)) for count in _HISTORIES}
    )


def encoder_latency(encoder: nn.Module, count: int, sizes: tuple[int, int]) -> Latency:
    """Time each place of so many histories, by their length and the table's width; any process, 0.1 s or 30 calls."""
    length, embedding_dim = sizes
    device = next(encoder.parameters()).device
    offsets = torch.arange(count + 1, device=device) * length
    return _latency(encoder, torch.zeros(count * length, embedding_dim, device=device), offsets)


def _measured(head: nn.Module, measure: Callable[[], dict[int, Latency]]) -> HeadCost:
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
        latency_us={size: found.median_us for size, found in latency.items()},
        latency_p95_us={size: found.p95_us for size, found in latency.items()},
    )


def head_latency(head: nn.Module, batch_size: int, sizes: tuple[int, int, int]) -> Latency:
    """Time a batch, by dense inputs, features and width of a feature; any process, 0.1 s or 30 calls."""
    num_dense, num_features, embedding_dim = sizes
    device = next(head.parameters()).device
    dense = torch.zeros(batch_size, num_dense, device=device)
    pooled = torch.zeros(batch_size, num_features, embedding_dim, device=device)
    return _latency(head, dense, pooled)


def _latency(module: nn.Module, *inputs: Tensor) -> Latency:
    times: list[float] = []
    with torch.inference_mode():
        module(*inputs)
        while len(times) < _LEAST_CALLS or sum(times) < _SECONDS:
            started = time.perf_counter()
            module(*inputs)
            if inputs[0].device.type == "cuda":
                torch.cuda.synchronize(inputs[0].device)
            times.append(time.perf_counter() - started)
    return Latency(1e6 * statistics.median(times), 1e6 * statistics.quantiles(times, n=20, method="inclusive")[-1])
