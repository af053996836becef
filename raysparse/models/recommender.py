"""A recommender: tables, and a head that makes a logit of what is looked up in them."""

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from raysparse.data.schema import Schema


class Recommender(nn.Module):
    """Sum-pooled tables and a head: dense `[B, I]` and jagged ids in, logits `[B]` out.

    The head alone sees numbers: it is what is pruned, searched and counted, and it does not know whether the
    tables are sharded.
    """

    def __init__(self, tables: EmbeddingBagCollection, head: nn.Module, features: tuple[str, ...]) -> None:
        super().__init__()
        self.tables = tables
        self.head = head
        self.features = features

    def forward(self, dense: Tensor, ids: KeyedJaggedTensor) -> Tensor:
        """Return the logits `[B]`."""
        return self.head(dense, self.look_up(ids))

    def look_up(self, ids: KeyedJaggedTensor) -> Tensor:
        """Return the pooled embeddings `[B, F, D]`."""
        return stack_pooled(self.tables(ids), self.features)


def embedding_tables(schema: Schema, embedding_dim: int) -> EmbeddingBagCollection:
    """The tables of a data set, on `meta`: where their rows come to lie is for the sharding plan to say."""
    features_of: dict[str, list[str]] = {}
    for feature in schema.ids:
        features_of.setdefault(feature.table_name, []).append(feature.name)
    rows_of = {feature.table_name: feature.rows for feature in schema.ids}
    configs = [
        EmbeddingBagConfig(
            name=table, embedding_dim=embedding_dim, num_embeddings=rows_of[table], feature_names=features
        )
        for table, features in features_of.items()
    ]
    return EmbeddingBagCollection(tables=configs, device=torch.device("meta"))


def stack_pooled(pooled: KeyedTensor, features: tuple[str, ...]) -> Tensor:
    """Stack pooled embeddings of one width as `[B, F, D]` in the order of `features`.

    The order of a sharded look-up's columns depends on the plan, so they are taken by name.
    """
    keys = pooled.keys()
    values = pooled.values()
    stacked = values.view(values.shape[0], len(features), values.shape[1] // len(features))
    if tuple(keys) == features:
        return stacked
    order = torch.tensor([keys.index(name) for name in features], device=values.device)
    return stacked.index_select(1, order)
