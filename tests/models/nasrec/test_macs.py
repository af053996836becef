from random import Random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raysparse.models.nasrec.canonical import canonical
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.macs import Count, count
from raysparse.models.nasrec.network import NASRec
from tests.models.nasrec.draws import SHAPE, draw_choice, draw_rows
from tests.models.nasrec.winners import WINNERS


def counted(choice: NASRecConfig, num_dense: int, num_features: int) -> Count:
    """By torch, on the network itself."""
    with torch.device("meta"):
        network = NASRec(choice, num_dense, num_features)
        rows = torch.zeros(1, num_dense), torch.zeros(1, num_features, choice.embedding_dim)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(*rows)
    return Count(counter.get_total_flops() // 2, sum(parameter.numel() for parameter in network.parameters()))


@pytest.mark.parametrize("name", WINNERS)
def test_the_winners_have_their_published_counts(name: str):
    winner = WINNERS[name]
    found = count(winner.choice, winner.num_dense, winner.num_features, padded=True)
    assert found.macs / 1e6 == pytest.approx(winner.macs, rel=0.01)
    assert found.parameters / 1e6 == pytest.approx(winner.parameters, rel=0.01)


@pytest.mark.parametrize("name", WINNERS)
def test_the_winners_run_at_what_is_counted(name: str):
    winner = WINNERS[name]
    found = count(winner.choice, winner.num_dense, winner.num_features)
    assert found == counted(winner.choice, winner.num_dense, winner.num_features)
    assert found == count(canonical(winner.choice), winner.num_dense, winner.num_features)


def test_only_a_gate_with_a_narrow_input_runs_below_its_published_count():
    padding = {
        name: count(winner.choice, winner.num_dense, winner.num_features, padded=True).macs
        - count(winner.choice, winner.num_dense, winner.num_features).macs
        for name, winner in WINNERS.items()
    }
    # Avazu's last block gates 768 columns by the one raw input: 768 x 768 products of which 768 x 767 are zeros.
    assert {name: macs for name, macs in padding.items() if macs} == {"avazu-full": 768 * 767}


def test_random_choices_run_at_what_is_counted():
    random = Random(5)
    for _ in range(60):
        choice = draw_choice(random)
        assert count(choice, SHAPE.num_dense, SHAPE.num_features) == counted(
            choice, SHAPE.num_dense, SHAPE.num_features
        )


def test_a_small_network_counted_by_hand():
    block = BlockChoice(dense_op="dot", dense_width=8, num_tokens=3, dense_to_sparse=True, fm=True)
    choice = NASRecConfig(embedding_dim=4, blocks=(block,), layer_norm=False)
    # 5 -> 4; 6 tokens -> 4 of width 4; 5 x 5 products of width 4; 10 pairs -> 8; 6 -> 3 tokens; 8 -> 32; 4 -> 8; logit.
    weights = [5 * 4, 6 * 4, 10 * 8, 6 * 3, 8 * 32, 4 * 8, 8 + 11 * 4]
    macs = 5 * 4 + 4 * 6 * 4 + 4 * 5 * 5 + 10 * 8 + 4 * 6 * 3 + 8 * 32 + 4 * 8 + 8 + 11 * 4
    assert count(choice, 5, 6) == Count(macs, sum(weights) + 4 + 4 + 8 + 3 + 32 + 8 + 1)
    rows = draw_rows(1, dtype=torch.float32)
    assert NASRec(choice, 5, 6)(*rows).shape == (5,)
