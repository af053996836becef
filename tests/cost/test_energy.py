from pathlib import Path

import pytest
import torch

from raysparse.cost import energy
from raysparse.cost.energy import encoder_energy, proxy_microjoules
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec

CONFIG = SASRecConfig(embedding_dim=16, num_layers=1, max_length=10)


def test_without_a_counter_it_is_a_proxy_and_says_so(tmp_path: Path):
    encoder = SASRec(CONFIG)
    found = encoder_energy(encoder, CONFIG, tmp_path)
    assert found.is_proxy
    # 10 items of 4 * 16^2 + 2 * 16 * 64 products, and 2 * 10^2 * 16 of attention; weights and rows of 4 bytes.
    macs = 10 * (4 * 16 * 16 + 2 * 16 * 64) + 2 * 100 * 16
    read = 4 * (sum(parameter.numel() for parameter in encoder.parameters()) + 160)
    assert found.microjoules == pytest.approx((4.6 * macs + 160 * read) / 1e6)
    larger = SASRecConfig(embedding_dim=16, num_layers=2, max_length=10)
    assert proxy_microjoules(SASRec(larger), larger) > found.microjoules


def test_an_encoder_that_is_not_on_the_cpu_is_not_charged_to_the_cpus_counter(tmp_path: Path):
    counter(tmp_path, 0)
    with torch.device("meta"):
        encoder = SASRec(CONFIG)
    found = encoder_energy(encoder, CONFIG, tmp_path)
    assert found.is_proxy
    assert found.microjoules == proxy_microjoules(SASRec(CONFIG), CONFIG)


def counter(folder: Path, number: int, part: str = "", name: str | None = None) -> None:
    path = folder / f"intel-rapl:{number}{part}"
    path.mkdir()
    (path / "name").write_text(f"{name or f'package-{number}'}\n")
    (path / "energy_uj").write_text("0")
    (path / "max_energy_range_uj").write_text("1000")


def test_the_counters_of_all_packages_are_read_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counter(tmp_path, 0)
    counter(tmp_path, 0, ":0", "core")
    counter(tmp_path, 1)
    counter(tmp_path, 2, name="psys")  # of the whole machine, with the packages
    monkeypatch.setattr(energy, "_SECONDS", 0.01)
    reads = iter([900, 100, 400, 300])
    monkeypatch.setattr(
        energy, "_read", lambda path: next(reads) if path.name == "energy_uj" else int(path.read_text())
    )
    runs: list[int] = []
    encoder = SASRec(CONFIG)
    encoder.register_forward_hook(lambda *_: runs.append(1))
    found = encoder_energy(encoder, CONFIG, tmp_path)
    assert not found.is_proxy
    # From 900 over 1000 to 400, and from 100 to 300; the first call warms up.
    assert found.microjoules == pytest.approx(700 / (len(runs) - 1))
