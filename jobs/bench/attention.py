"""Causal softmax attention on a CPU, raysparse's beside torch's: forward and backward.

python jobs/bench/attention.py [--repeats 15]

Histories of one length, 64 channels of heads, without dropout, one thread; one after the other, with two precisions of
matrix products of `scaling.matmul_precision`; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from raysparse.models.sasrec.causal_softmax import causal_softmax

SIZES = ((64, 10, 1), (64, 50, 1), (64, 50, 4), (64, 100, 2), (64, 200, 1), (64, 200, 4), (16, 512, 2), (4, 2048, 2))
"""Histories, items of each, heads."""
CHANNELS = 64

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| precision | histories | items | heads | torch, ms | raysparse, ms | times as fast (range) |")
    print("|---" * 7 + "|")
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        for sizes in SIZES:
            pairs = [(seconds(torchs, *sizes), seconds(causal_softmax, *sizes)) for _ in range(repeats + 1)][1:]
            one, other = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
            ratios = sorted(one / other for one, other in pairs)
            times = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
            cells = (precision, *map(str, sizes), f"{one:.1f}", f"{other:.1f}", times)
            print(f"| {' | '.join(cells)} |", flush=True)


def torchs(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True)


def seconds(attention: Attention, num_histories: int, length: int, num_heads: int) -> float:
    generator = torch.Generator().manual_seed(1)
    beside = torch.randn(num_histories, length, 3 * CHANNELS, generator=generator).requires_grad_()
    weights = torch.randn(num_histories, num_heads, length, CHANNELS // num_heads, generator=generator)
    inputs = [part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in beside.chunk(3, dim=2)]
    started = time.perf_counter()
    attention(inputs[0], inputs[1], inputs[2]).backward(weights)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
