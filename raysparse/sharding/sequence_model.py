"""A recommender of next items spread over ranks."""

import torch
from torch import Tensor
from torchrec.distributed.types import ShardingPlan

from raysparse.data.sequence_batch import SequenceBatch
from raysparse.models.sequence_recommender import SequenceRecommender
from raysparse.sharding.optimizer import DenseOptimizerConfig, SparseOptimizerConfig
from raysparse.sharding.plan import Sharder
from raysparse.sharding.weights import ShardedWeights


class ShardedSequenceModel(ShardedWeights):
    """Encodes what came before each target; scores are products of the encodings with rows of the table. Every rank."""

    def __init__(
        self,
        model: SequenceRecommender,
        plan: ShardingPlan,
        sharder: Sharder,
        device: torch.device,
        optimizers: tuple[SparseOptimizerConfig, DenseOptimizerConfig],
    ) -> None:
        super().__init__(model, plan, sharder, device, optimizers)
        self._model = model
        self._asked: tuple[SequenceBatch, Tensor] | None = None
        self._found: tuple[Tensor, Tensor] | None = None

    def look_up(self, sequences: SequenceBatch, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the table's rows of all items `[T, D]` and of the candidates `[N, D]`; all ranks together.

        `candidates` `[N]` int64, of this rank. What was found is kept until something else is asked for, or a step, for
        children that read it: the ranks agree, since it is the same objects that are asked for.
        """
        found = self._found
        if found is None or self._asked is None or self._asked[0] is not sequences or self._asked[1] is not candidates:
            found = self._model.look_up(sequences.items, candidates)
            self._asked, self._found = (sequences, candidates), found
        return found

    def finish_tables(self, num_steps: int) -> None:
        """End a step for the tables, once gradients are averaged; what was looked up before is forgotten."""
        self._asked = self._found = None
        super().finish_tables(num_steps)

    def encode(self, sequences: SequenceBatch, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return per target the encoding `[P, D]` and the table's row `[P, D]`, and the candidates' rows `[N, D]`.

        All ranks together, with a look-up of every item; `candidates` `[N]` int64, of this rank.
        """
        rows, candidate_rows = self.look_up(sequences, candidates)
        encoded = self.head(rows[sequences.input_places], sequences.input_offsets, sequences.target_inputs)
        return encoded, rows[sequences.target_places], candidate_rows
