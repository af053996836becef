"""Scores an elastic encoder's choice with the shared weights, by the ranks of next items. Any process, no ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raysparse.cost.energy import encoder_energy
from raysparse.cost.latency import encoder_latency
from raysparse.data.batch import Batch
from raysparse.data.sequence_batch import LastSequences, SequenceBatch
from raysparse.errors import CheckpointError
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.supernet import export_subnet
from raysparse.search.quality import NEXT_ITEMS
from raysparse.search.sasrec_space import SASRecSpace
from raysparse.search.sequence_cache import SequenceCache
from raysparse.sharding.held_table import HeldTable
from raysparse.train.item_draws import ItemDraws
from raysparse.train.ranking import RankingConfig, RankingMetrics

OBJECTIVES = (NEXT_ITEMS.objective, "macs", "parameters", "embedding_bytes", "latency_us", "energy_uj")
"""What a trial can measure; all are made small."""
ENERGY_IS_PROXY = "energy_is_proxy"
"""Stands beside `energy_uj`: 1 where it was counted, not measured."""

_LATENCY_HISTORIES = 64


class HeldSequenceModel:
    """An encoder and a table that one process holds whole; it encodes as a sharded model does."""

    def __init__(self, encoder: nn.Module, items: Tensor) -> None:
        """`items` `[M + 1, W]`."""
        self.head = encoder
        self.tables = HeldTable(items)
        self._items = items

    def encode(self, sequences: SequenceBatch, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return per target the encoding `[P, W]` and the table's row `[P, W]`, and the candidates' rows `[N, W]`."""
        rows = self._items[sequences.items]
        encoded = self.head(rows[sequences.input_places], sequences.input_offsets, sequences.target_inputs)
        return encoded, rows[sequences.target_places], self._items[candidates]


class SequenceScorer:
    """Scores choices one after the other on the same histories; weights and table are loaded once."""

    def __init__(
        self,
        cache: SequenceCache,
        space: SASRecSpace,
        ranking: RankingConfig,
        draws: ItemDraws,
        histories: Sequence[Batch],
        device: torch.device | None = None,
    ) -> None:
        """`histories` are those of the validation part. CheckpointError where the weights are of another space."""
        theirs = cache.manifest.space.model_copy(update={"max_macs": None})
        if theirs != space.config.model_copy(update={"max_macs": None}):
            raise CheckpointError(
                f"the cache in {cache.folder} belongs to another space than the job's; run the search with the job "
                "that made the cache, or start anew with --fresh"
            )
        device = device or torch.device("cpu")
        self._space = space
        self._ranking = ranking
        self._draws = draws
        self._supernet = cache.supernet(device)
        self._items = cache.items().to(device)
        self._histories = [batch.to(device) for batch in histories]

    @torch.inference_mode()
    def score(self, choice: SASRecConfig, objectives: tuple[str, ...] = ()) -> dict[str, float]:
        """Return the objectives of a choice by name: what NDCG@10 lacks to 1, HR@10 and counts in any case."""
        encoder = export_subnet(self._supernet.network, choice).eval()
        found = self.metrics(encoder, choice)
        scores = {NEXT_ITEMS.objective: 1.0 - found["ndcg@10"], "hr@10": found["hr@10"]}
        scores |= {name: float(count) for name, count in self._space.cost(choice).model_dump().items()}
        if "latency_us" in objectives:
            sizes = (choice.max_length, choice.embedding_dim)
            scores["latency_us"] = encoder_latency(encoder, _LATENCY_HISTORIES, sizes).median_us
        if "energy_uj" in objectives:
            energy = encoder_energy(encoder, choice)
            scores |= {"energy_uj": energy.microjoules, ENERGY_IS_PROXY: float(energy.is_proxy)}
        return scores

    def metrics(self, encoder: nn.Module, choice: SASRecConfig) -> dict[str, float]:
        """Return the ranking metrics of an encoder of a choice's widths."""
        # The first columns in one piece: the products with all items are what takes time.
        model = HeldSequenceModel(encoder, self._items[:, : choice.embedding_dim].contiguous())
        metrics = RankingMetrics(self._ranking, LastSequences(choice.max_length), self._draws)
        for batch in self._histories:
            metrics.add(model, batch)
        return metrics.compute()
