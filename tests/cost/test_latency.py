from itertools import accumulate

import pytest
import torch
from torch import Tensor, nn

from raysparse.cost import latency
from raysparse.cost.latency import BATCH_SIZES, head_latency, measure_head
from raysparse.models.dlrm import DLRM, DLRMConfig
from raysparse.models.groups import groups_of


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5, dtype=torch.float64)

    def forward(self, dense: Tensor, pooled: Tensor) -> Tensor:
        return self.layer(dense.double()) + pooled.sum()


def test_parameters_and_bytes_are_those_of_the_head_and_every_batch_is_timed():
    cost = measure_head(Double(), 3, 2, 4)
    assert (cost.parameters, cost.bytes) == (20, 160)
    assert set(cost.latency_us) == set(BATCH_SIZES)
    assert all(0.0 < latency < 1e6 for latency in cost.latency_us.values())
    assert all(cost.latency_p95_us[size] >= median for size, median in cost.latency_us.items())


def test_half_of_the_calls_take_longer_than_the_median_and_one_in_twenty_than_p95(monkeypatch: pytest.MonkeyPatch):
    # Calls of 1, 2, ..., 30 ms; what is longer than 0.1 s together is called 30 times all the same.
    clock = accumulate(pause for call in range(1, 31) for pause in (0.0, 1e-3 * call))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    found = head_latency(Double(), 1, (3, 2, 4))
    assert next(clock, None) is None
    assert found.median_us == pytest.approx(15_500)
    assert found.p95_us == pytest.approx(28_550)


def test_threads_are_given_back_and_masks_save_nothing():
    head = DLRM(DLRMConfig(embedding_dim=4, bottom=(8,), top=(8,)), 2, 3)
    open_cost = measure_head(head, 2, 3, 4)
    threads = torch.get_num_threads()
    for place in groups_of(head).values():
        place.set_mask(torch.zeros(place.num_groups))
    masked = measure_head(head, 2, 3, 4)
    assert masked.parameters == open_cost.parameters + sum(place.num_groups for place in groups_of(head).values())
    assert torch.get_num_threads() == threads
