"""A recommender: tables, and a head that makes a logit of what is looked up in them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import BaseEmbeddingConfig, EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from raysparse.data.schema import Schema
from raysparse.errors import ConfigError


class Recommender(nn.Module):
    """Sum-pooled tables and a head: dense `[B, I]` and jagged ids in, logits `[B]` out.

    The head alone sees numbers: it is what is pruned, searched and counted, and it does not know whether the
    tables are sharded.
    """

    def __init__(
        self, tables: EmbeddingBagCollection, head: nn.Module, features: tuple[str, ...], embedding_dim: int
    ) -> None:
        super().__init__()
        self.tables = tables
        self.head = head
        self.features = features
        self.embedding_dim = embedding_dim

    @property
    def table_configs(self) -> Sequence[BaseEmbeddingConfig]:
        """Names and sizes of the tables."""
        return self.tables.embedding_bag_configs()

    def forward(self, dense: Tensor, ids: KeyedJaggedTensor) -> Tensor:
        """Return the logits `[B]`."""
        return self.head(dense, self.look_up(ids))

    def look_up(self, ids: KeyedJaggedTensor) -> Tensor:
        """Return the pooled embeddings `[B, F, D]`."""
        return stack_pooled(self.tables(ids), self.features, self.embedding_dim)


def embedding_tables(
    schema: Schema, embedding_dim: int, field_dims: tuple[int, ...] | None = None
) -> EmbeddingBagCollection:
    """The tables of a data set, on `meta`: where their rows come to lie is for the sharding plan to say.

    `field_dims` gives each feature's width; None: `embedding_dim`. ConfigError where it does not fit the features.
    """
    width_of = table_widths(schema, embedding_dim, field_dims)
    features_of: dict[str, list[str]] = {}
    for feature in schema.ids:
        features_of.setdefault(feature.table_name, []).append(feature.name)
    rows_of = {feature.table_name: feature.rows for feature in schema.ids}
    configs = [
        EmbeddingBagConfig(
            name=table, embedding_dim=width_of[table], num_embeddings=rows_of[table], feature_names=features
        )
        for table, features in features_of.items()
    ]
    return EmbeddingBagCollection(tables=configs, device=torch.device("meta"))


def table_widths(schema: Schema, embedding_dim: int, field_dims: tuple[int, ...] | None) -> dict[str, int]:
    """Return the width of each table by name; ConfigError as `embedding_tables`."""
    if field_dims is None:
        return {feature.table_name: embedding_dim for feature in schema.ids}
    if len(field_dims) != len(schema.ids):
        names = ", ".join(feature.name for feature in schema.ids)
        raise ConfigError(
            f"model.field_dims: found {len(field_dims)} widths; allowed: one for each of the data set's "
            f"{len(schema.ids)} id features, in the order {names}"
        )
    widths: dict[str, int] = {}
    for feature, width in zip(schema.ids, field_dims, strict=True):
        if widths.setdefault(feature.table_name, width) != width:
            raise ConfigError(
                f"model.field_dims: found {width} for {feature.name!r}, whose table {feature.table_name!r} is "
                f"{widths[feature.table_name]} wide for another feature; allowed: one width for features of one table"
            )
    return widths


def stack_pooled(pooled: KeyedTensor, features: tuple[str, ...], embedding_dim: int) -> Tensor:
    """Stack pooled embeddings as `[B, F, D]` in the order of `features`, narrower ones filled up with zeros.

    The order of a sharded look-up's columns depends on the plan, so they are taken by name.
    """
    keys = pooled.keys()
    values = pooled.values()
    if values.shape[1] < len(features) * embedding_dim:
        widths = pooled.length_per_key()
        parts = dict(zip(keys, values.split(widths, dim=1), strict=True))
        padded = [nn.functional.pad(parts[name], (0, embedding_dim - parts[name].shape[1])) for name in features]
        return torch.stack(padded, dim=1)
    stacked = values.view(values.shape[0], len(features), embedding_dim)
    if tuple(keys) == features:
        return stacked
    order = torch.tensor([keys.index(name) for name in features], device=values.device)
    return stacked.index_select(1, order)
