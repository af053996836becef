"""What slicing is worth: supernet steps and scores against the masked twin, full width and with look-ups of its own.

python jobs/bench/supernet_speed.py [--menu full] [--choices 12] [--batch 512] [--rows 8192]

One process, one thread, 13 dense features and 26 tables x 100,000 x 16. For each choice drawn, of both, one after the
other: a training step (forward, backward, Adagrad), the logits of `--rows` rows, and a trial that tunes the head in
four passes over as many rows, then scores as many others. Medians of times and of ratios. The sliced network reads
cached features, the masked one looks its rows up; so a trial of the sliced network, `Scorer`, computes what the head
reads once, where the masked one goes the whole way in each step, as the published code does. Rows are computed in the
batches of a scoring job, by both.
"""

import argparse
import statistics
import tempfile
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
from raysparse.search.feature_cache import CacheWriter, FeatureCache, Rows
from raysparse.search.scoring import Scorer, ScoringConfig
from raysparse.search.short_training import draw_epochs
from raysparse.sharding.head import TrainedHead
from raysparse.sharding.optimizer import DenseOptimizerConfig

NUM_DENSE, NUM_FEATURES, ROWS, DIM = 13, 26, 100_000, 16
TUNING_PASSES = 4
"""Over the rows on which a head is tuned, about as many as by the default of a job (3.9)."""
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
    scoring = ScoringConfig(
        tuning_rows=arguments.rows,
        tuning_steps=TUNING_PASSES * arguments.rows // arguments.batch,
        tuning_batch_size=arguments.batch,
    )
    with tempfile.TemporaryDirectory() as folder:
        scorer = Scorer(write_cache(folder, supernet, config, arguments.rows), space, scoring, seed=1)
    reference = MaskedTrial(masked, tables, scoring, arguments.rows)
    times: dict[str, list[tuple[float, float]]] = {"training step": [], "logits": [], "trial": []}
    for number in range(-1, arguments.choices):
        choice = space.sample(Random(f"supernet_speed/{number}"))
        supernet.choices = (choice,)
        batch, labels = rows_of(arguments.batch), torch.randint(0, 2, (arguments.batch,)).float()
        many, ids = rows_of(arguments.rows), ids_of(arguments.rows)
        pairs = {
            "training step": (
                seconds(sliced_step, trained, supernet, batch, labels),
                seconds(masked_step, masked, adagrad, batch, labels, choice),
            ),
            "logits": (
                seconds(sliced_logits, supernet, many, scoring.batch_size),
                seconds(reference.logits, many[0], ids, choice),
            ),
            "trial": (seconds(scorer.score, choice), seconds(reference.score, choice)),
        }
        if number >= 0:  # the first one wakes everything up
            for what, pair in pairs.items():
                times[what].append(pair)
    print(f"menu {arguments.menu}, {arguments.choices} choices, batch {arguments.batch}, {arguments.rows} rows scored")
    print("| what | sliced, ms | masked, ms | ratio, median (smallest to largest) |\n|---|---|---|---|")
    for what, pairs in times.items():
        print(line(what, pairs))
    sliced, masked_way = (60.0 * arguments.choices / sum(column) for column in zip(*times["trial"], strict=True))
    print(f"trials a minute: sliced {sliced:.1f}, masked {masked_way:.2f}, ratio {sliced / masked_way:.1f}")


def schema() -> Schema:
    dense = tuple(DenseFeature(name=f"dense_{number:02d}") for number in range(NUM_DENSE))
    return Schema(dense=dense, ids=tuple(IdFeature(name=name, rows=ROWS) for name in NAMES))


def rows_of(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, NUM_DENSE), torch.randn(count, NUM_FEATURES, DIM)


def ids_of(count: int) -> KeyedJaggedTensor:
    return ids_at(torch.randint(0, ROWS, (NUM_FEATURES, count)), torch.arange(count))


def ids_at(ids: Tensor, rows: Tensor) -> KeyedJaggedTensor:
    values = ids[:, rows].flatten()
    return KeyedJaggedTensor(list(NAMES), values, lengths=torch.ones(len(values), dtype=torch.int64))


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
def sliced_logits(supernet: nn.Module, cached: tuple[Tensor, Tensor], batch_size: int) -> None:
    for dense, pooled in zip(*(column.split(batch_size) for column in cached), strict=True):
        supernet(dense, pooled)


def write_cache(folder: str, supernet: NASRecSupernet, space: CTRSpaceConfig, count: int) -> FeatureCache:
    """Write rows as a supernet's run leaves them."""
    writer = CacheWriter(folder, rank=0)
    for part in ("tuning", "validation"):
        writer.write_rows(part, [Rows(*rows_of(count), torch.randint(0, 2, (count,)).float(), torch.arange(count))])
    days = {"tuning": ("001",), "validation": ("002",)}
    writer.finish(dict(supernet.network.state_dict()), space, (NUM_DENSE, NUM_FEATURES), days)
    return FeatureCache.open(folder)


class MaskedTrial:
    """A trial in the reference way: each step, and each batch that is scored, is looked up and goes the whole way."""

    def __init__(self, masked: MaskedNetwork, tables: nn.Module, scoring: ScoringConfig, num_rows: int) -> None:
        self.masked, self.tables, self.scoring, self.num_rows = masked, tables, scoring, num_rows
        self.dense, self.labels = rows_of(num_rows)[0], torch.randint(0, 2, (num_rows,)).float()
        self.ids = torch.randint(0, ROWS, (NUM_FEATURES, num_rows))

    def score(self, choice: NASRecConfig) -> None:
        """Tune the head, and score the rows."""
        for parameter in self.masked.parameters():
            parameter.requires_grad_(False)
        head = list(self.masked.logit.requires_grad_(True).parameters())
        optimizer = torch.optim.Adagrad(head, fused=True)
        scoring = self.scoring
        order = draw_epochs(self.num_rows, scoring.tuning_steps * scoring.tuning_batch_size, torch.Generator())
        for rows in order.split(scoring.tuning_batch_size):
            logits = self.masked(self.dense[rows], self.looked_up(ids_at(self.ids, rows)), choice)
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(logits, self.labels[rows]).backward()
            optimizer.step()
        self.logits(self.dense, ids_at(self.ids, torch.arange(self.num_rows)), choice)
        self.masked.requires_grad_(True)

    @torch.no_grad()
    def logits(self, dense: Tensor, ids: KeyedJaggedTensor, choice: NASRecConfig) -> None:
        """Compute the logits of rows."""
        values = ids.values().view(NUM_FEATURES, -1)
        for rows in torch.arange(len(dense)).split(self.scoring.batch_size):
            self.masked(dense[rows], self.looked_up(ids_at(values, rows)), choice)

    @torch.no_grad()
    def looked_up(self, ids: KeyedJaggedTensor) -> Tensor:
        """Return the pooled rows."""
        return stack_pooled(self.tables(ids), NAMES, DIM)


def seconds(work: Callable[..., object], *arguments: object) -> float:
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
