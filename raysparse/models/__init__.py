"""Recommendation models as plain modules: tables in, logits out, no Ray and no torch.distributed."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from raysparse.data.schema import Schema
from raysparse.models.dcn import DCN, DCNConfig
from raysparse.models.deepfm import DeepFM, DeepFMConfig
from raysparse.models.dlrm import DLRM, DLRMConfig
from raysparse.models.recommender import Recommender, embedding_tables

ModelConfig = Annotated[DLRMConfig | DeepFMConfig | DCNConfig, Field(discriminator="kind")]

HEADS: dict[str, type[nn.Module]] = {"dlrm": DLRM, "deepfm": DeepFM, "dcn": DCN}


def build_model(config: ModelConfig, schema: Schema, seed: int) -> Recommender:
    """Build a model for a data set: tables on `meta`, the head on the CPU with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = HEADS[config.kind](config, schema.num_dense_inputs, len(schema.ids))
    features = tuple(feature.name for feature in schema.ids)
    return Recommender(embedding_tables(schema, config.embedding_dim), head, features)


__all__ = ["HEADS", "ModelConfig", "Recommender", "build_model"]
