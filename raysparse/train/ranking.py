"""Metrics of ranks: how often, and how high up, what came next stands among all items."""

from itertools import pairwise
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.data.batch import Batch
from raysparse.data.sequence_batch import LastSequences, SequenceBatch, items_before
from raysparse.sharding.item_ranks import Queries, RankedTables, rank_targets
from raysparse.train.arm import Arm
from raysparse.train.item_draws import Distribution, ItemDraws, history_keys
from raysparse.train.ranking_summary import CUTOFFS

_NUM_SAMPLES = 100
"""As in the papers of SASRec and BERT4Rec."""
ITEMS_AT_A_TIME = 2**21
"""Items before the targets that are ranked at once on a rank: some 100 MB."""


class RankingConfig(Config):
    """How next items are scored: by their rank among all items, whatever the loss."""

    filter_seen: bool = True
    """Whether the items of a history are left out of the ranking of what comes after it. Where items come back, as
    places or songs do, give false: a target that was seen before would be ranked among unseen items alone, which gives
    it away. `repeat_share` in the history is the share of such targets."""
    sampled: tuple[Distribution, ...] = ()
    """Ranks among 100 unseen items besides, drawn evenly or by how often they occur, to compare with papers: such
    ranks may turn the order of models round (Krichene and Rendle, KDD 2020)."""
    max_rows: int | None = Field(default=None, ge=1)
    """Rows that are scored of a day, or after an epoch, drawn by the seed; null: all."""


class RankingModel(Protocol):
    """What ranking asks of a model: spread over ranks, or held by this process."""

    @property
    def head(self) -> nn.Module:
        """The encoder."""
        ...

    @property
    def tables(self) -> RankedTables:
        """The rows of items."""
        ...

    def encode(self, sequences: SequenceBatch, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return per target the encoding `[P, D]` and the table's row `[P, D]`, and the candidates' rows `[N, D]`."""
        ...


class RankingMetrics:
    """Sums up hit rate, NDCG and reciprocal rank of a day's targets. Every rank has the sums of all ranks."""

    def __init__(self, config: RankingConfig, sequences: LastSequences, draws: ItemDraws) -> None:
        """`sequences` may be shared by the metrics of several arms, so that items are looked up once."""
        self._config = config
        self._sequences = sequences
        self._draws = draws
        self._rows = 0
        self._targets = 0
        self._repeats = 0
        prefixes = ("", *(_prefix(name) for name in config.sampled))
        self._sums = {f"{prefix}{name}@{k}": 0.0 for prefix in prefixes for k in CUTOFFS for name in _GAINS}

    def update(self, arm: Arm, batch: Batch) -> Tensor:
        """Rank this rank's targets and add them; all ranks together.

        Returns per row `[B]` what the mean NDCG@10 of its targets lacks to 1; 0 for padding and rows without targets.
        """
        return self.add(cast(RankingModel, arm.model), batch)

    def add(self, model: RankingModel, batch: Batch) -> Tensor:
        """Do the same with a model that is no arm of a run."""
        sequences = self._sequences.of(batch)
        model.head.eval()
        encoded, _, _ = model.encode(sequences, self._sequences.no_items)
        self._rows += batch.num_rows
        parts = _parts(sequences.num_before)
        own = torch.cat([self._rank(model.tables, batch, encoded[part], part) for part in parts])
        lacking = torch.zeros_like(batch.weights).index_add_(0, sequences.target_rows, 1.0 - _ndcg(own, 10))
        return lacking / torch.bincount(sequences.target_rows, minlength=len(lacking)).clamp(min=1)

    def compute(self) -> dict[str, Any]:
        """Return `rows`, `targets` and means over the targets, such as `ndcg@10`; None where there are no targets.

        `repeat_share` is the share of targets that stand in their own history.
        """
        totals = {"repeat_share": self._repeats, **self._sums}
        means = {name: total / self._targets if self._targets else None for name, total in totals.items()}
        return {"rows": self._rows, "targets": self._targets, **means}

    def _rank(self, tables: RankedTables, batch: Batch, encoded: Tensor, part: slice) -> Tensor:
        """Add a part of this rank's targets, with those of the others, and return the ranks of its own."""
        sequences = self._sequences.of(batch)
        targets = sequences.targets[part]
        before, of = items_before(batch.ids, sequences, part)
        queries, first = _of_all_ranks(self._queries(encoded, targets, before, of))
        ranks, sampled = rank_targets(tables, queries)
        self._targets += len(ranks)
        self._repeats += _of_ranks(of[before == targets[of]].unique().numel(), of.device, dist.ReduceOp.SUM)
        self._add("", ranks)
        for name, standing in sampled.items():
            self._add(_prefix(name), standing)
        return ranks[first : first + len(targets)]

    def _queries(self, encoded: Tensor, targets: Tensor, before: Tensor, of: Tensor) -> Queries:
        samples: dict[str, Tensor] = {}
        if self._config.sampled:
            keys = history_keys(targets, before, of)
            taken = torch.cat([before, targets]), torch.cat([of, torch.arange(len(targets), device=of.device)])
            for name in self._config.sampled:
                samples[name] = self._draws.draw_unseen(name, _NUM_SAMPLES, keys, *taken).to(targets.device)
        left_out = before != targets[of] if self._config.filter_seen else torch.zeros_like(of, dtype=torch.bool)
        return Queries(encoded, targets, before[left_out], of[left_out], samples)

    def _add(self, prefix: str, ranks: Tensor) -> None:
        for k in CUTOFFS:
            for name, gain in _GAINS.items():
                self._sums[f"{prefix}{name}@{k}"] += gain(ranks, k).double().sum().item()


def _parts(num_before: Tensor) -> list[slice]:
    """Cut this rank's targets so that not too many items stand before those of a part; as many parts on every rank.

    A row of n targets has n² / 2 items before them, at some 40 bytes each: 8 GB for a day of 20,000 clicks of one user.
    """
    up_to = num_before.cumsum(0).cpu()
    ends = [0]
    while ends[-1] < len(up_to):
        before = up_to[ends[-1] - 1] if ends[-1] else 0
        end = int(torch.searchsorted(up_to, before + ITEMS_AT_A_TIME, right=True))
        ends.append(max(end, ends[-1] + 1))
    most = _of_ranks(len(ends) - 1, num_before.device, dist.ReduceOp.MAX)
    missing = max(1, most) - (len(ends) - 1)
    return [slice(*pair) for pair in pairwise([*ends, *[ends[-1]] * missing])]


def _prefix(distribution: str) -> str:
    return f"{distribution}{_NUM_SAMPLES}_"


def _hit(ranks: Tensor, k: int) -> Tensor:
    return torch.where(ranks < k, 1.0, 0.0 * ranks)  # a rank that is no number stays one


def _ndcg(ranks: Tensor, k: int) -> Tensor:
    return _hit(ranks, k) / torch.log2(ranks + 2.0)


def _reciprocal(ranks: Tensor, k: int) -> Tensor:
    return _hit(ranks, k) / (ranks + 1.0)


_GAINS = {"hr": _hit, "ndcg": _ndcg, "mrr": _reciprocal}


def _of_all_ranks(mine: Queries) -> tuple[Queries, int]:
    """Join the queries of all ranks, in their order; and the place of the first of this rank's targets."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return mine, 0
    targets, sizes = _gather(mine.targets)
    first = sum(sizes[: dist.get_rank()])
    joined = Queries(
        encoded=_gather(mine.encoded)[0],
        targets=targets,
        seen=_gather(mine.seen)[0],
        seen_by=_gather(mine.seen_by + first)[0],
        samples={name: _gather(sample)[0] for name, sample in mine.samples.items()},
    )
    return joined, first


def _of_ranks(count: int, device: torch.device, operation: dist.ReduceOp.RedOpType) -> int:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return count
    total = torch.tensor(count, device=device)
    dist.all_reduce(total, operation)
    return int(total)


def _gather(rows: Tensor) -> tuple[Tensor, list[int]]:
    """Join every rank's rows along the first dimension; and how many each has."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = [int(size) for size in sizes]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]), counts
