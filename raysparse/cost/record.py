"""The cost of a model as one record, whoever asks."""

import copy

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raysparse.config import Config
from raysparse.data.schema import Schema
from raysparse.models import Recommender


class Cost(Config):
    """What serving one row with a model takes."""

    macs: int
    """Multiply-adds of the head's matrix products for one row."""
    parameters: int
    """Parameters of the head."""
    embedding_bytes: int
    """Bytes of all tables, float32."""


def cost_of(model: Recommender, schema: Schema) -> Cost:
    """Count a model that has not been sharded yet; any process, runs the head once on one row of zeros."""
    head = copy.deepcopy(model.head)
    configs = model.tables.embedding_bag_configs()
    pooled = torch.zeros(1, len(model.features), model.embedding_dim)
    # The counter does not know the CPU's attention kernel; of the plain one it sees the matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        head(torch.zeros(1, schema.num_dense_inputs), pooled)
    return Cost(
        macs=counter.get_total_flops() // 2,
        parameters=sum(parameter.numel() for parameter in head.parameters()),
        embedding_bytes=sum(4 * config.num_embeddings * config.embedding_dim for config in configs),
    )
