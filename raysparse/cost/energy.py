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
_COUNTER = Path("/sys/class/powercap/intel-rapl:0")
_SECONDS = 0.5


@dataclass(frozen=True)
class Energy:
    """Microjoules of one history."""

    microjoules: float
    is_proxy: bool
    """Counted from multiply-adds and bytes, not measured: good for a comparison at best."""


def encoder_energy(encoder: nn.Module, config: SASRecConfig, counter: Path = _COUNTER) -> Energy:
    """Measure an encoder on histories of its length, over 0.5 s of the package's counter, or count it; any process.

    The counter is that of the whole package: what else runs on it is in the figure. It knows nothing of a GPU, so that
    an encoder on one is counted.
    """
    on_package = next(encoder.parameters()).device.type == "cpu"
    if not on_package or not (counter / "energy_uj").exists():
        return Energy(proxy_microjoules(encoder, config), is_proxy=True)
    try:
        return Energy(_measured(encoder, config, counter), is_proxy=False)
    except PermissionError:  # root's alone on many machines
        return Energy(proxy_microjoules(encoder, config), is_proxy=True)


def proxy_microjoules(encoder: nn.Module, config: SASRecConfig) -> float:
    """Multiply-adds, and bytes of the weights and of the history's rows, each read once, at a price for each."""
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    read = 4 * (weights + config.max_length * config.embedding_dim)
    return 1e-6 * (PICOJOULES_PER_MAC * encoder_macs(config, config.max_length) + PICOJOULES_PER_BYTE * read)


@torch.inference_mode()
def _measured(encoder: nn.Module, config: SASRecConfig, counter: Path) -> float:
    values = torch.zeros(config.max_length, config.embedding_dim)
    offsets = torch.tensor([0, config.max_length])
    encoder(values, offsets)
    started, before, runs = time.perf_counter(), _read(counter / "energy_uj"), 0
    while time.perf_counter() - started < _SECONDS:
        encoder(values, offsets)
        runs += 1
    spent = _read(counter / "energy_uj") - before
    if spent < 0:  # the counter begins again from 0
        spent += _read(counter / "max_energy_range_uj")
    return spent / runs


def _read(path: Path) -> int:
    return int(path.read_text())
