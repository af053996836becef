"""Recommendation models as plain modules: tables and a head, no Ray and no torch.distributed."""

from typing import Annotated, overload

import torch
from pydantic import Field
from torch import nn

from raysparse.data.schema import Schema
from raysparse.errors import ConfigError
from raysparse.models.autoint import AutoInt, AutoIntConfig
from raysparse.models.dcn import DCN, DCNConfig
from raysparse.models.deepfm import DeepFM, DeepFMConfig
from raysparse.models.dlrm import DLRM, DLRMConfig
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.network import NASRec
from raysparse.models.nasrec.supernet import NASRecSupernet, NASRecSupernetConfig
from raysparse.models.recommender import Recommender, embedding_tables
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.models.sasrec.supernet import SASRecSupernet, SASRecSupernetConfig
from raysparse.models.sequence_recommender import SequenceRecommender, item_table
from raysparse.models.xdeepfm import XDeepFM, XDeepFMConfig

HandMadeConfig = Annotated[
    DLRMConfig | DeepFMConfig | DCNConfig | AutoIntConfig | XDeepFMConfig, Field(discriminator="kind")
]
"""Models that were designed by hand."""

ClickModelConfig = (
    DLRMConfig | DeepFMConfig | DCNConfig | AutoIntConfig | XDeepFMConfig | NASRecConfig | NASRecSupernetConfig
)
"""Models of whether a row's label is 1."""

SequenceModelConfig = SASRecConfig | SASRecSupernetConfig
"""Models of which item comes next."""

ModelConfig = Annotated[ClickModelConfig | SequenceModelConfig, Field(discriminator="kind")]

AnyRecommender = Recommender | SequenceRecommender

HEADS: dict[str, type[nn.Module]] = {
    "dlrm": DLRM,
    "deepfm": DeepFM,
    "dcn": DCN,
    "autoint": AutoInt,
    "xdeepfm": XDeepFM,
    "nasrec": NASRec,
    "nasrec_supernet": NASRecSupernet,
}


@overload
def build_model(config: ClickModelConfig, schema: Schema, seed: int) -> Recommender: ...


@overload
def build_model(config: SequenceModelConfig, schema: Schema, seed: int) -> SequenceRecommender: ...


def build_model(config: ModelConfig, schema: Schema, seed: int) -> AnyRecommender:
    """Build a model for a data set: tables on `meta`, the head on the CPU with weights drawn from `seed`.

    ConfigError where the model is not one for the data set's task, or where the config gives the tables' widths,
    and they do not fit the data set.
    """
    wanted = "next_item" if isinstance(config, SequenceModelConfig) else "click"
    if schema.task != wanted:
        what = {"click": "rows with a label", "next_item": "sequences"}
        allowed = {"click": ", ".join(HEADS), "next_item": "sasrec, sasrec_supernet"}
        raise ConfigError(
            f"model.kind: found {config.kind}, but the data set is of {what[schema.task]}; allowed for such: "
            f"{allowed[schema.task]}; or give a data set of {what[wanted]} as data.path"
        )
    if isinstance(config, SequenceModelConfig):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = SASRec(config) if isinstance(config, SASRecConfig) else SASRecSupernet(config)
            return SequenceRecommender(item_table(schema, config.embedding_dim), encoder)
    field_dims = config.field_dims if isinstance(config, NASRecConfig) else None
    tables = embedding_tables(schema, config.embedding_dim, field_dims)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = HEADS[config.kind](config, schema.num_dense_inputs, len(schema.ids))
    features = tuple(feature.name for feature in schema.ids)
    return Recommender(tables, head, features, config.embedding_dim)


__all__ = [
    "HEADS",
    "AnyRecommender",
    "ClickModelConfig",
    "HandMadeConfig",
    "ModelConfig",
    "Recommender",
    "SequenceModelConfig",
    "SequenceRecommender",
    "build_model",
]
