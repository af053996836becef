"""How much energy a history takes: a counter of the machine where one can be read, otherwise a stated proxy."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from raysparse.cost.encoder import encoder_macs
from raysparse.models.sasrec.config import SASRecConfig

PICOJOULES_PER_MAC = 4.6
"""A 32-bit floating-point product, 3.7, and sum, 0.9, in 45 nm (Horowitz 2014, ISSCC, figure 1.1.9)."""
PICOJOULES_PER_BYTE = 160.0
"""Of memory outside the chip: 640 for 32 bits (the same figure, its lower end)."""
_COUNTERS = Path("/sys/class/powercap")
_SECONDS = 0.5


@dataclass(frozen=True)
class Energy:
    """Microjoules of one history."""

    microjoules: float
    is_proxy: bool
    """Counted from multiply-adds and bytes, not measured: good for a comparison at best."""


def encoder_energy(encoder: nn.Module, config: SASRecConfig, folder: Path = _COUNTERS) -> Energy:
    """Measure an encoder on histories of its length, over 0.5 s of the packages' counters, or count it; any process.

    The counters are those of whole packages, of all there are, since the process may run on any: what else runs on them
    is in the figure. They know nothing of a GPU, so that an encoder on one is counted.
    """
    on_package = next(encoder.parameters()).device.type == "cpu"
    counters = [path for path in sorted(folder.glob("intel-rapl:*")) if _is_package(path)]
    if not on_package or not counters:
        return Energy(proxy_microjoules(encoder, config), is_proxy=True)
    try:
        return Energy(_measured(encoder, config, counters), is_proxy=False)
    except PermissionError:  # root's alone on many machines
        return Energy(proxy_microjoules(encoder, config), is_proxy=True)


def proxy_microjoules(encoder: nn.Module, config: SASRecConfig) -> float:
    """Multiply-adds, and bytes of the weights and of the history's rows, each read once, at a price for each."""
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    read = 4 * (weights + config.max_length * config.embedding_dim)
    return 1e-6 * (PICOJOULES_PER_MAC * encoder_macs(config, config.max_length) + PICOJOULES_PER_BYTE * read)


def _is_package(counter: Path) -> bool:
    """intel-rapl:0 is one; intel-rapl:0:0 is a part of it, and psys, beside it, has it as a part."""
    name = counter / "name"
    return counter.name.count(":") == 1 and name.exists() and name.read_text().startswith("package")


@torch.inference_mode()
def _measured(encoder: nn.Module, config: SASRecConfig, counters: list[Path]) -> float:
    values = torch.zeros(config.max_length, config.embedding_dim)
    offsets = torch.tensor([0, config.max_length])
    encoder(values, offsets)
    started, before, runs = time.perf_counter(), [_read(counter / "energy_uj") for counter in counters], 0
    while time.perf_counter() - started < _SECONDS:
        encoder(values, offsets)
        runs += 1
    return sum(_spent(counter, begun) for counter, begun in zip(counters, before, strict=True)) / runs


def _spent(counter: Path, before: int) -> int:
    spent = _read(counter / "energy_uj") - before
    if spent < 0:  # the counter begins again from 0
        spent += _read(counter / "max_energy_range_uj")
    return spent


def _read(path: Path) -> int:
    return int(path.read_text())
