from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raysparse.cost.encoder import encoder_macs
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec

BASE: dict[str, Any] = {"embedding_dim": 16, "num_layers": 2, "num_heads": 2, "max_length": 200, "dropout": 0.0}


@pytest.mark.parametrize("length", [1, 50, 64, 65, 150])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"attention": "linear"},
        {"gate": "paper"},
        {"gate": "context"},
        {"ffn_width": 20, "num_heads": 4, "num_layers": 3},
        {"ffn_width": (8, 24), "num_heads": (1, 3), "head_dim": 4, "attention": ("softmax", "linear")},
    ],
    ids=str,
)
def test_the_count_is_that_of_the_products_that_run(keys: dict[str, Any], length: int):
    config = SASRecConfig.model_validate({**BASE, **keys})
    encoder = SASRec(config).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(length, config.embedding_dim), torch.tensor([0, length]))
    assert encoder_macs(config, length) == counter.get_total_flops() // 2


def test_the_default_of_recbole_costs_what_is_known():
    # 123,904 multiply-adds an item at 100 of them (d 64, f 256, 2 layers).
    config = SASRecConfig(embedding_dim=64, num_layers=2, ffn_width=256, max_length=100)
    assert encoder_macs(config, 100) == 100 * 123_904


@pytest.mark.parametrize("attention", ["softmax", "linear"])
@pytest.mark.parametrize(
    "larger", [{"embedding_dim": 20}, {"num_layers": 3}, {"ffn_width": 65}, {"gate": "context"}], ids=str
)
def test_a_larger_network_costs_more(larger: dict[str, Any], attention: str):
    base = {**BASE, "attention": attention}
    small, large = SASRecConfig.model_validate(base), SASRecConfig.model_validate({**base, **larger})
    assert encoder_macs(large, 50) > encoder_macs(small, 50)


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_a_longer_history_costs_more(attention: str):
    config = SASRecConfig.model_validate({**BASE, "attention": attention})
    costs = [encoder_macs(config, length) for length in range(1, 200)]
    assert all(longer > shorter for shorter, longer in pairwise(costs))


def test_gates_of_easrec_cost_more_than_narrow_ones():
    plain, context, paper = (
        encoder_macs(SASRecConfig.model_validate({**BASE, "gate": gate}), 50) for gate in ("none", "context", "paper")
    )
    assert plain < context < paper
