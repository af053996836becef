"""Recommendation models as plain modules: tables in, logits out, no Ray and no torch.distributed."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from raysparse.data.schema import Schema
from raysparse.models.autoint import AutoInt, AutoIntConfig
from raysparse.models.dcn import DCN, DCNConfig
from raysparse.models.deepfm import DeepFM, DeepFMConfig
from raysparse.models.dlrm import DLRM, DLRMConfig
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.network import NASRec
from raysparse.models.nasrec.supernet import NASRecSupernet, NASRecSupernetConfig
from raysparse.models.recommender import Recommender, embedding_tables
from raysparse.models.xdeepfm import XDeepFM, XDeepFMConfig

HandMadeConfig = Annotated[
    DLRMConfig | DeepFMConfig | DCNConfig | AutoIntConfig | XDeepFMConfig, Field(discriminator="kind")
]
"""Models that were designed by hand."""

ModelConfig = Annotated[
    DLRMConfig | DeepFMConfig | DCNConfig | AutoIntConfig | XDeepFMConfig | NASRecConfig | NASRecSupernetConfig,
    Field(discriminator="kind"),
]

HEADS: dict[str, type[nn.Module]] = {
    "dlrm": DLRM,
    "deepfm": DeepFM,
    "dcn": DCN,
    "autoint": AutoInt,
    "xdeepfm": XDeepFM,
    "nasrec": NASRec,
    "nasrec_supernet": NASRecSupernet,
}


def build_model(config: ModelConfig, schema: Schema, seed: int) -> Recommender:
    """Build a model for a data set: tables on `meta`, the head on the CPU with weights drawn from `seed`.

    ConfigError where the config gives the tables' widths, and they do not fit the data set.
    """
    field_dims = config.field_dims if isinstance(config, NASRecConfig) else None
    tables = embedding_tables(schema, config.embedding_dim, field_dims)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = HEADS[config.kind](config, schema.num_dense_inputs, len(schema.ids))
    features = tuple(feature.name for feature in schema.ids)
    return Recommender(tables, head, features, config.embedding_dim)


__all__ = ["HEADS", "HandMadeConfig", "ModelConfig", "Recommender", "build_model"]
