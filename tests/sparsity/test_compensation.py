import copy

import pytest
import torch
from torch import Tensor

from raysparse.models.dcn import DCN, DCNConfig
from raysparse.models.dlrm import DLRM, DLRMConfig
from raysparse.models.groups import groups_of
from raysparse.sparsity.compaction import compact
from raysparse.sparsity.compensation import ColumnStatistics, Training, compensate, observe
from raysparse.sparsity.layout import Masks, layout_of, open_masks
from raysparse.sparsity.pruner import write_masks


def alone(weights: Tensor) -> Training:
    return Training(torch.nn.Identity, lambda _: weights, lambda tensor: None, rows=500)


def test_moments_are_those_of_the_rows_that_are_no_padding():
    columns = torch.randn(50, 3, dtype=torch.double)
    weights = torch.ones(50, dtype=torch.double)
    weights[40:] = 0.0
    statistics = ColumnStatistics(3, decay=0.0)
    statistics.moments = statistics.moments.double()
    statistics.add(columns, alone(weights))
    mean, covariance = statistics.covariance()
    torch.testing.assert_close(mean, columns[:40].mean(0))
    torch.testing.assert_close(covariance, torch.cov(columns[:40].T, correction=0))


def test_a_group_that_another_one_repeats_is_taken_over_whole():
    torch.manual_seed(0)
    head = DLRM(DLRMConfig(embedding_dim=4, bottom=(), top=(8, 4)), num_dense=0, num_features=4)
    layer = head.get_submodule("top.0.0")
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        # Neuron 1 is three times neuron 0: neuron 0 can say all that it said.
        layer.weight[0], layer.bias[0] = layer.weight[0].abs(), 1.0
        layer.weight[1], layer.bias[1] = 3.0 * layer.weight[0], 3.0
    pooled = torch.rand(500, 4, 4)
    expected = head(torch.zeros(500, 0), pooled).detach()
    layout = layout_of(head, 1000, 1, 0.0)
    before = open_masks(layout)
    write_masks(head, before)
    statistics = {place: ColumnStatistics(layout.num_columns(place), 0.0) for place in layout.sizes}
    observe(Training(lambda: head, lambda _: torch.ones(500), lambda tensor: None, rows=500), statistics)
    head(torch.zeros(500, 0), pooled)
    after = open_masks(layout)
    after["top.0.2"][1] = False
    without = copy.deepcopy(head)
    write_masks(without, after)
    compensate(head, before, after, statistics)
    write_masks(head, after)
    lost = (without(torch.zeros(500, 0), pooled) - expected).abs().max()
    left = (head(torch.zeros(500, 0), pooled) - expected).abs().max()
    # The ridge of 1e-3 leaves a thousandth.
    assert left < 0.01 * lost


@pytest.mark.parametrize("seed", range(5))
def test_what_a_layer_is_told_is_nearer_to_what_it_was_told(seed: int):
    torch.manual_seed(seed)
    head = DCN(DCNConfig(embedding_dim=4, num_cross_layers=1, rank=4, deep=(16, 8)), num_dense=2, num_features=3)
    layout = layout_of(head, 10_000, 1, 0.0)
    before = open_masks(layout)
    write_masks(head, before)
    statistics = {place: ColumnStatistics(layout.num_columns(place), 0.0) for place in layout.sizes}
    observe(Training(lambda: head, lambda _: torch.ones(800), lambda tensor: None, rows=500), statistics)
    dense, pooled = torch.randn(800, 2), torch.randn(800, 3, 4)
    expected = head(dense, pooled).detach()
    observe(Training(lambda: head, lambda _: torch.ones(800), lambda tensor: None, rows=500), {})
    # One place, read by the logit alone: there, least squares on these very rows cannot lose.
    after: Masks = {**open_masks(layout), "deep.5": torch.arange(8) % 3 > 0}
    without = copy.deepcopy(head)
    write_masks(without, after)
    compensate(head, before, after, statistics)
    write_masks(head, after)
    error = (head(dense, pooled) - expected).square().mean()
    assert error < (without(dense, pooled) - expected).square().mean()
    # It is the masked head that was changed: compacting it is still exact.
    small = compact(head, after)
    torch.testing.assert_close(small(dense, pooled), head(dense, pooled), rtol=1e-5, atol=1e-6)
    assert all(place.observer is None for place in groups_of(small).values())


def test_a_batch_without_rows_changes_no_moments():
    statistics = ColumnStatistics(3, decay=0.0)
    statistics.add(torch.randn(5, 3), alone(torch.ones(5)))
    before = statistics.moments.clone()
    statistics.add(torch.randn(0, 3), alone(torch.ones(0)))
    torch.testing.assert_close(statistics.moments, before, rtol=0, atol=0)
