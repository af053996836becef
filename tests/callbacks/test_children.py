"""Which tables a child reads, and which of them learn."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from raysparse.callbacks.children import WidthsConfig, child_of, fork_masked, parent_of, reset_weights
from raysparse.models import ClickModelConfig, build_model
from raysparse.models.autoint import AutoIntConfig
from raysparse.models.deepfm import DeepFMConfig
from raysparse.models.dlrm import DLRMConfig
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.models.xdeepfm import XDeepFMConfig
from raysparse.sharding.weights import ShardedWeights
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState
from tests.data.datasets import PLAIN, write_dataset
from tests.train.ranks import job_of, run_job


def weights_of(model: ShardedWeights) -> list[Tensor]:
    return [tensor.clone() for shard in model.tables.shards for tensor in (shard.weight, *shard.states.values())]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


class Fork(Callback):
    """Forks a child of each kind on the second day and looks at their tables when the day is over."""

    def __init__(self) -> None:
        self.at_fork: list[Tensor] = []
        self.checked = False

    def scored(self, state: TrainState) -> None:
        if state.position.day_index == 1:
            parent = parent_of(state, WidthsConfig())
            self.at_fork = weights_of(parent.model)
            state.arms += [
                fork_masked(state, parent, tables, inherit_optimizer=True, tables=tables)
                for tables in ("shared", "frozen", "copied")
            ]

    def day_end(self, state: TrainState) -> None:
        if state.position.day_index != 2:
            return
        parent = weights_of(parent_of(state, WidthsConfig()).model)
        children = {arm.name: child_of(arm) for arm in state.arms[1:]}
        assert children["shared"].own is None
        frozen, copied = children["frozen"].own, children["copied"].own
        assert frozen is not None
        assert copied is not None
        assert not equal(parent, self.at_fork)
        assert equal(weights_of(frozen.model), self.at_fork)
        assert not equal(weights_of(copied.model), self.at_fork)
        # A full-size child that has seen what its parent has seen, from the same state, is its parent.
        torch.testing.assert_close(weights_of(copied.model), parent, rtol=1e-4, atol=1e-5)
        self.checked = True


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_shared_tables_are_the_parents_frozen_ones_stay_and_copied_ones_learn(
    tmp_path: Path, one_rank: None, optimizer: str
):
    write_dataset(tmp_path / "set", PLAIN, [[300]] * 2)
    sparse = {"kind": optimizer, "learning_rate": 0.1}
    changes = {"callbacks": [], "optimizer": {"sparse": sparse, "dense": {"learning_rate": 0.01}}}
    fork = Fork()
    run_job(job_of(str(tmp_path / "set"), str(tmp_path / "run"), **changes), [fork])
    assert fork.checked


@pytest.mark.parametrize(
    "config", [DeepFMConfig(deep=(8,)), XDeepFMConfig(cin=(4, 3), deep=(8,)), AutoIntConfig(deep=(8,)), DLRMConfig()]
)
def test_fresh_weights_are_all_drawn_anew(config: ClickModelConfig):
    head = build_model(config, PLAIN, 1).head
    before = {name: weight.clone() for name, weight in head.named_parameters()}
    reset_weights(head, 7)
    assert [name for name, weight in head.named_parameters() if torch.equal(weight, before[name])] == []


def test_fresh_weights_of_an_encoder_are_all_drawn_anew():
    head = SASRec(SASRecConfig(embedding_dim=8, num_heads=2, max_length=5))
    with torch.no_grad():
        for weight in head.parameters():
            weight.fill_(3.0)
    reset_weights(head, 7)
    assert [name for name, weight in head.named_parameters() if (weight == 3.0).any()] == []
