"""Causal softmax attention on a CPU, raysparse's beside torch's, alone and in an encoder: forward and backward.

python jobs/bench/attention.py [--repeats 15]

Histories of one length, 64 channels of heads; then a step of the encoder of jobs/beauty.yaml and of the largest one of
jobs/search-movielens-1m.yaml on histories of log-normal lengths. No dropout on attention, one thread; one after the
other: torch's with the precision of matrix products `highest` and `medium`, and raysparse's with `medium`. Medians.
At last the forward pass of such encoders, and of shallower ones, when all places of the histories are worked out, and
when it is their ends alone, as scoring asks for, with `medium`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from raysparse.job import SearchJob, TrainJob, load_job, require_kind
from raysparse.models.fused_attention import fused_attention
from raysparse.models.sasrec import attention as attention_module
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.models.sasrec.menu import SASRecSpaceConfig

SIZES = ((64, 10, 1), (64, 50, 1), (64, 50, 4), (64, 100, 2), (64, 200, 1), (64, 200, 4), (16, 512, 2), (4, 2048, 2))
"""Histories, items of each, heads."""
CHANNELS = 64

STEPS = (("jobs/beauty.yaml", 256, 1.8), ("jobs/search-movielens-1m.yaml", 64, 4.6))
"""Job, histories of a step, mean of the logarithm of their lengths (deviation 0.7, four items at least)."""

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| histories | items | heads | torch, highest, ms | medium | raysparse, medium | times as fast (ranges) |")
    print("|---" * 7 + "|")
    for sizes in SIZES:
        cells = compared(partial(attention_seconds, sizes), repeats)
        print(f"| {' | '.join((*map(str, sizes), *cells))} |", flush=True)
    print(
        "\n| encoder | items in the mean | torch, highest, ms | medium | raysparse, medium | times as fast (ranges) |"
    )
    print("|---" * 6 + "|")
    for path, num_histories, mean in STEPS:
        encoder = encoder_of(path)
        lengths = lengths_for(encoder.config, num_histories, mean)
        cells = compared(partial(step_seconds, encoder, lengths), repeats)
        print(f"| {path} | {float(lengths.float().mean()):.0f} | {' | '.join(cells)} |", flush=True)
    print("\n| encoder | blocks | all places, ms | the ends, ms | times as fast (range) |")
    print("|---" * 5 + "|")
    for path, num_histories, mean in STEPS:
        for layers in (1, 2, 3):
            config = encoder_of(path).config.model_copy(update={"num_layers": layers})
            cells = scored(SASRec(config).eval(), lengths_for(config, num_histories, mean), repeats)
            print(f"| {path} | {layers} | {' | '.join(cells)} |", flush=True)


def lengths_for(config: SASRecConfig, num_histories: int, mean: float) -> Tensor:
    drawn = torch.empty(num_histories).log_normal_(mean, 0.7, generator=torch.Generator().manual_seed(1))
    return drawn.long().clamp(4, config.max_length)


def compared(seconds_of: Callable[[str, Attention], float], repeats: int) -> list[str]:
    """The three times, and how often raysparse's fits into torch's."""
    kinds = (("highest", torchs), ("medium", torchs), ("medium", ours))
    rounds = [[seconds_of(*kind) for kind in kinds] for _ in range(repeats + 1)][1:]
    times = [f"{1e3 * statistics.median(column):.1f}" for column in zip(*rounds, strict=True)]
    return [*times, ", ".join(spread([row[place] / row[2] for row in rounds]) for place in (0, 1))]


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def torchs(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True)


def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return fused_attention(query, key, value, causal=True)


def attention_seconds(sizes: tuple[int, int, int], precision: str, attention: Attention) -> float:
    num_histories, length, num_heads = sizes
    torch.set_float32_matmul_precision(precision)
    generator = torch.Generator().manual_seed(1)
    beside = torch.randn(num_histories, length, 3 * CHANNELS, generator=generator).requires_grad_()
    weights = torch.randn(num_histories, num_heads, length, CHANNELS // num_heads, generator=generator)
    inputs = [part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in beside.chunk(3, dim=2)]
    started = time.perf_counter()
    attention(inputs[0], inputs[1], inputs[2]).backward(weights)
    return time.perf_counter() - started


def encoder_of(path: str) -> SASRec:
    job = load_job(path)
    if isinstance(job, SearchJob):
        assert isinstance(job.space, SASRecSpaceConfig)
        return SASRec(job.space.largest)
    config = require_kind(TrainJob, job, path).model
    assert isinstance(config, SASRecConfig)
    return SASRec(config)


def step_seconds(encoder: SASRec, lengths: Tensor, precision: str, attention: Attention) -> float:
    torch.set_float32_matmul_precision(precision)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    values = torch.randn(int(offsets[-1]), CHANNELS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with patch.object(attention_module, "fused_attention", lambda *parts, **_: attention(*parts)):
        started = time.perf_counter()
        encoder(values, offsets).sum().backward()
        return time.perf_counter() - started


@torch.inference_mode()
def scored(encoder: SASRec, lengths: Tensor, repeats: int) -> list[str]:
    """The times of a forward pass for all places and for the ends, and how often the second fits into the first."""
    torch.set_float32_matmul_precision("medium")
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    values = torch.randn(int(offsets[-1]), CHANNELS, generator=torch.Generator().manual_seed(1))

    def seconds(wanted: Tensor | None) -> float:
        started = time.perf_counter()
        encoder(values, offsets, wanted)
        return time.perf_counter() - started

    rounds = [(seconds(None), seconds(offsets[1:] - 1)) for _ in range(repeats + 1)][1:]
    times = [f"{1e3 * statistics.median(column):.1f}" for column in zip(*rounds, strict=True)]
    return [*times, spread([whole / ends for whole, ends in rounds])]


if __name__ == "__main__":
    main()
