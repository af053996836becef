"""What leaving groups out saves in time: the fully connected part of a head on one core, pruned in three ways.

python jobs/bench/compaction_speed.py [--top 1024 512 256] [--seconds 0.4]

Masked: the full matrices, neurons multiplied by zero. CSR: single weights left out at random, as many multiply-adds
kept. Compacted: the pruned rows and columns are gone. Each is timed in turn with the dense network, and the table gives
the median of the paired ratios beside the ratio of the multiply-adds. As served: dense and compacted both traced and
frozen, which spares Python's calls, and given at most 512 rows at once, so that activations stay in the cache.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from raysparse.models.dlrm import DLRM, DLRMConfig
from raysparse.models.groups import groups_of
from raysparse.sparsity.compaction import compact
from raysparse.sparsity.layout import Masks, layout_of, open_masks
from raysparse.sparsity.projection import uniform_widths
from raysparse.sparsity.pruner import write_masks

BUDGETS = (0.5, 0.25, 0.1, 0.05)
BATCHES = (1, 64, 1024, 4096)
NUM_FEATURES, NUM_DENSE = 26, 13
ROWS_AT_ONCE = 512


class CSRLinear(nn.Module):
    """A layer whose weights are stored as a sparse matrix."""

    def __init__(self, linear: nn.Linear, density: float) -> None:
        super().__init__()
        weight = linear.weight.detach() * (torch.rand_like(linear.weight) < density)
        self.weight = weight.to_sparse_csr()
        self.bias = linear.bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        return (self.weight @ inputs.T).T + self.bias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--top", type=int, nargs="+", default=[1024, 512, 256])
    parser.add_argument("--seconds", type=float, default=0.4, help="how long each pair of networks is timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dense = DLRM(DLRMConfig(top=tuple(arguments.top)), NUM_DENSE, NUM_FEATURES).eval()
    print("| MACs left in FC | batch | dense us | masked | CSR | compacted | MAC ratio | share | served | share |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for budget in BUDGETS:
        for batch in BATCHES:
            print(row(dense, budget, batch, arguments.seconds), flush=True)


def row(dense: DLRM, budget: float, batch: int, seconds: float) -> str:
    masks = masks_of(dense, budget)
    masked = copy.deepcopy(dense)
    write_masks(masked, masks)
    small = compact(dense, masks)
    assert isinstance(small, DLRM)
    share = macs(small.top) / macs(dense.top)
    unstructured = copy.deepcopy(dense.top)
    replace_linears(unstructured, share)
    wide = torch.randn(batch, linears(dense.top)[0].in_features)
    narrow = torch.randn(batch, linears(small.top)[0].in_features)
    base = [time_of(lambda: dense.top(wide), seconds / 4)]
    speed = {}
    for name, call in {
        "masked": lambda: masked.top(wide),
        "csr": lambda: unstructured(wide),
        "compacted": lambda: small.top(narrow),
    }.items():
        speed[name], dense_us = ratio(lambda: dense.top(wide), call, seconds)
        base.append(dense_us)
    as_served, _ = ratio(served(dense.top, wide), served(small.top, narrow), seconds)
    cells = [f"{share:.3f}", f"{batch:,}", f"{statistics.median(base):.0f}"]
    cells += [f"{speed[name]:.2f}x" for name in ("masked", "csr", "compacted")]
    cells += [f"{1 / share:.2f}x", f"{speed['compacted'] * share:.2f}", f"{as_served:.2f}x", f"{as_served * share:.2f}"]
    return "| " + " | ".join(cells) + " |"


def served(network: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    """Return a call of a network in the form in which a server would run it."""
    pieces = inputs.split(ROWS_AT_ONCE)
    with torch.inference_mode():
        frozen = torch.jit.freeze(torch.jit.trace(network, pieces[0]))
    return lambda: torch.cat([frozen(piece) for piece in pieces])


def masks_of(dense: DLRM, budget: float) -> Masks:
    """Random masks: which groups are kept does not matter for the time, how many does."""
    layout = layout_of(dense, sum(macs(part) for part in (dense.bottom, dense.top) if part is not None), 8, 0.05)
    widths = uniform_widths(layout, layout.budget_macs(budget))
    masks = open_masks(layout)
    for place, groups in groups_of(dense).items():
        masks[place][torch.randperm(groups.num_groups)[widths[place] :]] = False
    return masks


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def macs(module: nn.Module) -> int:
    return sum(linear.in_features * linear.out_features for linear in linears(module))


def replace_linears(module: nn.Module, density: float) -> None:
    for name, part in list(module.named_children()):
        if isinstance(part, nn.Linear):
            setattr(module, name, CSRLinear(part, density))
        else:
            replace_linears(part, density)


def ratio(first: Callable[[], Tensor], second: Callable[[], Tensor], seconds: float) -> tuple[float, float]:
    """How many times faster the second is, as the median over alternating turns, and the first's microseconds."""
    pairs = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(pairs) < 5:
        pairs.append((time_of(first, seconds / 20), time_of(second, seconds / 20)))
    return statistics.median(a / b for a, b in pairs), statistics.median(a for a, _ in pairs)


def time_of(call: Callable[[], Tensor], seconds: float) -> float:
    """Median microseconds of a call."""
    times = []
    with torch.inference_mode():
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            started = time.perf_counter()
            call()
            times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


if __name__ == "__main__":
    main()
