"""A recommender of next items: one table, and an encoder of the histories that are looked up in it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import BaseEmbeddingConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from raysparse.data.schema import ITEM_TABLE, Schema

FIRST_BOUND = 0.02 * 3**0.5
"""First weights of the table are drawn evenly within it: a deviation of 0.02, as in SASRec's code."""

_SEQUENCE, _CANDIDATES = "sequence", "candidates"


class SequenceRecommender(nn.Module):
    """A table of items and a head that encodes sequences of its rows; an item's score is its row times the encoding.

    The items of the sequences, inputs and targets alike, and those that they are scored against are two features of
    the one table: each is looked up once, and learns from both sides.
    """

    def __init__(self, tables: EmbeddingCollection, head: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.head = head

    @property
    def table_configs(self) -> Sequence[BaseEmbeddingConfig]:
        """Name and size of the table."""
        return self.tables.embedding_configs()

    def look_up(self, items: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the sequences' items `[T, D]` and of the candidates `[N, D]`, given `[T]` and `[N]`."""
        # As one row each: ranks need not have the same number of sequences.
        lengths = torch.tensor([items.numel(), candidates.numel()], device=items.device)
        ids = KeyedJaggedTensor([_SEQUENCE, _CANDIDATES], torch.cat([items, candidates]), lengths=lengths)
        found = self.tables(ids)
        return found[_SEQUENCE].values(), found[_CANDIDATES].values()


def item_table(schema: Schema, embedding_dim: int) -> EmbeddingCollection:
    """The table of a data set of sequences, on `meta`: where its rows come to lie is for the sharding plan to say."""
    rows = next(feature.rows for feature in schema.ids if feature.table_name == ITEM_TABLE)
    config = EmbeddingConfig(
        name=ITEM_TABLE, embedding_dim=embedding_dim, num_embeddings=rows, feature_names=[_SEQUENCE, _CANDIDATES]
    )
    return EmbeddingCollection(tables=[config], device=torch.device("meta"))
