"""The softmax over all items, worked out in parts, beside torch's on all scores at once: forward and backward.

python jobs/bench/full_softmax.py [--repeats 15] [--precision highest]

Steps of jobs/beauty.yaml (12,101 items) and jobs/movielens-1m.yaml (3,416), one thread, one after the other; medians.
The precision of matrix products is that of both, as `scaling.matmul_precision` has it.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raysparse.models.sasrec.full_softmax import full_softmax

SIZES = ((12_101, 2_250, 16), (12_101, 2_250, 64), (3_416, 10_000, 64))
"""Items, targets of a step, width."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--precision", choices=["highest", "high", "medium"], default="highest")
    arguments = parser.parse_args()
    repeats = arguments.repeats
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(arguments.precision)
    print("| items | targets | width | all at once, ms | in parts, ms | times as fast (range) |\n" + "|---" * 6 + "|")
    for items, targets, width in SIZES:
        pairs = [
            (seconds(at_once, items, targets, width), seconds(full_softmax, items, targets, width))
            for _ in range(repeats + 1)
        ][1:]
        whole, parts = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
        ratios = sorted(one / other for one, other in pairs)
        times = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        print(f"| {items:,} | {targets:,} | {width} | {whole:.0f} | {parts:.0f} | {times} |", flush=True)


def at_once(encoded: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(encoded @ items[1:].T, targets - 1, reduction="sum")


def seconds(loss: Loss, num_items: int, num_targets: int, width: int) -> float:
    generator = torch.Generator().manual_seed(1)
    encoded = torch.randn(num_targets, width, generator=generator).mul_(0.1).requires_grad_()
    items = torch.randn(num_items + 1, width, generator=generator).mul_(0.1).requires_grad_()
    targets = torch.randint(1, num_items + 1, (num_targets,), generator=generator)
    started = time.perf_counter()
    loss(encoded, items, targets).backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
