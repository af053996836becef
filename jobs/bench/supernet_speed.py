"""What slicing is worth: supernet steps and scores against the masked twin, full width and with look-ups of its own.

python jobs/bench/supernet_speed.py [--menu full] [--choices 12] [--batch 512] [--rows 8192]

One process, one thread, 13 dense features and 26 tables x 100,000 x 16. For each choice drawn, one training step
(forward, backward, Adagrad) and one score (forward over `--rows` rows) of both, one after the other: medians of times
and of ratios. A sliced score reads the cached features, a masked one looks its rows up.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from random import Random

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.masked import MaskedNetwork
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.supernet import NASRecSupernet, NASRecSupernetConfig
from raysparse.models.recommender import stack_pooled
from raysparse.search.ctr_space import CTRSpace
from raysparse.sharding.head import TrainedHead
from raysparse.sharding.optimizer import DenseOptimizerConfig

NUM_DENSE, NUM_FEATURES, ROWS, DIM = 13, 26, 100_000, 16
NAMES = tuple(f"id_{number:02d}" for number in range(NUM_FEATURES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--menu", choices=["small", "full"], default="full")
    parser.add_argument("--choices", type=int, default=12)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rows", type=int, default=8192)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    config = CTRSpaceConfig(menu=arguments.menu)
    supernet = NASRecSupernet(NASRecSupernetConfig(space=config), NUM_DENSE, NUM_FEATURES)
    trained = TrainedHead(supernet, DenseOptimizerConfig(kind="adagrad"), torch.device("cpu"))
    masked = MaskedNetwork(supernet.network)
    adagrad = torch.optim.Adagrad(masked.parameters(), fused=True)
    tables = EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(name=name, embedding_dim=DIM, num_embeddings=ROWS, feature_names=[name])
            for name in NAMES
        ]
    )
    space = CTRSpace(config, schema())
    steps: list[tuple[float, float]] = []
    scores: list[tuple[float, float]] = []
    for number in range(-1, arguments.choices):
        choice = space.sample(Random(f"supernet_speed/{number}"))
        supernet.choices = (choice,)
        batch, labels = rows_of(arguments.batch), torch.randint(0, 2, (arguments.batch,)).float()
        many, ids = rows_of(arguments.rows), ids_of(arguments.rows)
        pair = (
            seconds(sliced_step, trained, supernet, batch, labels),
            seconds(masked_step, masked, adagrad, batch, labels, choice),
        )
        score = (
            seconds(sliced_score, supernet, many),
            seconds(masked_score, masked, many[0], tables, ids, choice),
        )
        if number >= 0:  # the first one wakes everything up
            steps.append(pair)
            scores.append(score)
    print(f"menu {arguments.menu}, {arguments.choices} choices, batch {arguments.batch}, {arguments.rows} rows scored")
    print("| what | sliced, ms | masked, ms | ratio, median (smallest to largest) |\n|---|---|---|---|")
    print(line("training step", steps))
    print(line("score", scores))


def schema() -> Schema:
    dense = tuple(DenseFeature(name=f"dense_{number:02d}") for number in range(NUM_DENSE))
    return Schema(dense=dense, ids=tuple(IdFeature(name=name, rows=ROWS) for name in NAMES))


def rows_of(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, NUM_DENSE), torch.randn(count, NUM_FEATURES, DIM)


def ids_of(count: int) -> KeyedJaggedTensor:
    values = torch.randint(0, ROWS, (NUM_FEATURES * count,))
    return KeyedJaggedTensor(list(NAMES), values, lengths=torch.ones(NUM_FEATURES * count, dtype=torch.int64))


def sliced_step(trained: TrainedHead, supernet: nn.Module, batch: tuple[Tensor, Tensor], labels: Tensor) -> None:
    trained.zero_grad()
    binary_cross_entropy_with_logits(supernet(*batch), labels).backward()
    trained.step()


def masked_step(
    masked: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    labels: Tensor,
    choice: NASRecConfig,
) -> None:
    optimizer.zero_grad()
    binary_cross_entropy_with_logits(masked(*batch, choice), labels).backward()
    optimizer.step()


@torch.no_grad()
def sliced_score(supernet: nn.Module, cached: tuple[Tensor, Tensor]) -> None:
    supernet(*cached)


@torch.no_grad()
def masked_score(
    masked: nn.Module, dense: Tensor, tables: EmbeddingBagCollection, ids: KeyedJaggedTensor, choice: NASRecConfig
) -> None:
    masked(dense, stack_pooled(tables(ids), NAMES, DIM), choice)


def seconds(work: Callable[..., None], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def line(what: str, pairs: list[tuple[float, float]]) -> str:
    ratios = [masked / sliced for sliced, masked in pairs]
    sliced, masked = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    return (
        f"| {what} | {sliced:.0f} | {masked:.0f} | "
        f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |"
    )


if __name__ == "__main__":
    main()
