"""Heads of which a step uses a part, and what the ranks of their tests run."""

import copy
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from raysparse.config import check
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.supernet import NASRecSupernet, NASRecSupernetConfig
from raysparse.search.ctr_space import CTRSpace
from raysparse.sharding.head import TrainedHead
from raysparse.sharding.optimizer import DenseOptimizerConfig
from tests.models.nasrec.draws import draw_head

SPACE = CTRSpaceConfig(menu="wide", num_blocks=3, dense_widths=(4, 8), token_counts=(4, 8), embedding_dim=8)
SCHEMA = Schema(dense=(DenseFeature(name="x"),), ids=tuple(IdFeature(name=name, rows=9) for name in ("a", "b", "c")))
ROWS = 12
STEPS = 8


def choices(count: int = STEPS) -> list[NASRecConfig]:
    space = CTRSpace(SPACE, SCHEMA)
    return [space.sample(Random(seed)) for seed in range(count)]


def build(dtype: torch.dtype = torch.float32, **optimizer: Any) -> TrainedHead:
    torch.manual_seed(1)
    config = check(DenseOptimizerConfig, {"learning_rate": 0.1, **optimizer}, "test")
    head = NASRecSupernet(NASRecSupernetConfig(space=SPACE), 1, 3)
    draw_head(head.network)
    head.to(dtype)
    return TrainedHead(head, config, torch.device("cpu"))


def set_choice(trained: TrainedHead, choice: NASRecConfig) -> NASRecSupernet:
    head = trained.module
    assert isinstance(head, NASRecSupernet)
    head.choices = (choice,)
    return head


def twin_of(trained: TrainedHead) -> NASRecSupernet:
    head = trained.module
    assert isinstance(head, NASRecSupernet)
    return copy.deepcopy(head)


def loss_of(head: torch.nn.Module, step: int) -> Tensor:
    """The mean loss of this rank's rows of a batch of 12."""
    generator = torch.Generator().manual_seed(step)
    dense, pooled = torch.randn(ROWS, 1, generator=generator), torch.randn(ROWS, 3, 8, generator=generator)
    labels = torch.randint(0, 2, (ROWS,), generator=generator).float()
    size = ROWS // dist.get_world_size()
    mine = slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)
    dtype = next(head.parameters()).dtype
    logits = head(dense[mine].to(dtype), pooled[mine].to(dtype))
    return binary_cross_entropy_with_logits(logits, labels[mine].to(dtype))


def train(trained: TrainedHead) -> None:
    for step, choice in enumerate(choices()):
        set_choice(trained, choice)
        trained.zero_grad()
        loss_of(trained.module, step).backward()
        trained.step()


def weights_of(trained: TrainedHead) -> dict[str, Tensor]:
    """Weights and optimizer state, by name."""
    return {name: tensor.pieces[0].tensor.clone() for name, tensor in trained.state().items()}


def train_and_write(path: str, optimizer: dict[str, Any]) -> None:
    """Train on this rank's rows; rank 0 writes, and each rank says how many numbers it has exchanged."""
    trained = build(**optimizer)
    exchanged: list[int] = []
    all_reduce = dist.all_reduce

    def counted(tensor: Tensor) -> None:
        exchanged.append(tensor.numel())
        all_reduce(tensor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counted)
        train(trained)
    weights = weights_of(trained)
    for name, mine in weights.items():
        others = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(others, mine)
        assert all(torch.equal(mine, other) for other in others), f"{name} differs between ranks"
    if dist.get_rank() == 0:
        torch.save({"weights": weights, "exchanged": exchanged}, Path(path))
