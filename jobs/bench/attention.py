"""Causal softmax attention on a CPU, raysparse's beside torch's: forward and backward.

python jobs/bench/attention.py [--repeats 15]

Histories of one length, 64 channels of heads, without dropout, one thread; one after the other: torch's with the
precision of matrix products `highest` and `medium`, and raysparse's with `medium`. Medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from raysparse.models.fused_attention import fused_attention

SIZES = ((64, 10, 1), (64, 50, 1), (64, 50, 4), (64, 100, 2), (64, 200, 1), (64, 200, 4), (16, 512, 2), (4, 2048, 2))
"""Histories, items of each, heads."""
CHANNELS = 64

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| histories | items | heads | torch, highest, ms | medium | raysparse, medium | times as fast (ranges) |")
    print("|---" * 7 + "|")
    for sizes in SIZES:
        rounds = [
            (
                seconds("highest", torchs, *sizes),
                seconds("medium", torchs, *sizes),
                seconds("medium", ours, *sizes),
            )
            for _ in range(repeats + 1)
        ][1:]
        times = [f"{1e3 * statistics.median(column):.1f}" for column in zip(*rounds, strict=True)]
        ratios = [spread([row[place] / row[2] for row in rounds]) for place in (0, 1)]
        print(f"| {' | '.join((*map(str, sizes), *times, ', '.join(ratios)))} |", flush=True)


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def torchs(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True)


def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return fused_attention(query, key, value, causal=True)


def seconds(precision: str, attention: Attention, num_histories: int, length: int, num_heads: int) -> float:
    torch.set_float32_matmul_precision(precision)
    generator = torch.Generator().manual_seed(1)
    beside = torch.randn(num_histories, length, 3 * CHANNELS, generator=generator).requires_grad_()
    weights = torch.randn(num_histories, num_heads, length, CHANNELS // num_heads, generator=generator)
    inputs = [part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in beside.chunk(3, dim=2)]
    started = time.perf_counter()
    attention(inputs[0], inputs[1], inputs[2]).backward(weights)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
