"""The cost of a model as one record, whoever asks."""

import copy

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raysparse.config import Config
from raysparse.cost.encoder import encoder_macs
from raysparse.data.schema import Schema
from raysparse.models import AnyRecommender, Recommender
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.models.sasrec.supernet import SASRecSupernet


class Cost(Config):
    """What serving one row with a model takes."""

    macs: int
    """Multiply-adds of the head's matrix products for one row; of an encoder, for the longest history."""
    parameters: int
    """Parameters of the head."""
    embedding_bytes: int
    """Bytes of all tables, float32."""


def cost_of(model: AnyRecommender, schema: Schema) -> Cost:
    """Count a model that has not been sharded yet; any process.

    The head of a click model runs once, on one row of zeros; an encoder is counted for its longest history.
    """
    return Cost(
        macs=_head_macs(model, schema) if isinstance(model, Recommender) else _encoder_macs(model.head),
        parameters=sum(parameter.numel() for parameter in model.head.parameters()),
        embedding_bytes=sum(4 * config.num_embeddings * config.embedding_dim for config in model.table_configs),
    )


def encoder_cost(config: SASRecConfig, num_rows: int) -> Cost:
    """Count a SASRec network and its table of `num_rows` rows without building their weights."""
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in SASRec(config).parameters())
    return Cost(
        macs=encoder_macs(config, config.max_length),
        parameters=parameters,
        embedding_bytes=4 * num_rows * config.embedding_dim,
    )


def _head_macs(model: Recommender, schema: Schema) -> int:
    head = copy.deepcopy(model.head)
    pooled = torch.zeros(1, len(model.features), model.embedding_dim)
    # The counter does not know the CPU's attention kernel; of the plain one it sees the matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        head(torch.zeros(1, schema.num_dense_inputs), pooled)
    return counter.get_total_flops() // 2


def _encoder_macs(encoder: nn.Module) -> int:
    if isinstance(encoder, SASRecSupernet):
        encoder = encoder.network
    assert isinstance(encoder, SASRec)
    return encoder_macs(encoder.config, encoder.config.max_length)
