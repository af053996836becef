"""Random choices and networks with weights far from their first values, for the tests."""

from random import Random

import torch
from torch import Tensor, nn

from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.shape import SupernetShape, supernet_shape

SHAPE = SupernetShape(
    num_dense=5,
    num_features=6,
    embedding_dim=4,
    num_blocks=5,
    dense_width=32,
    num_tokens=12,
    dense_ops=("fc", "dot", "gating", "sum", "cross"),
    layer_norms=(True, False),
    flat_tokens=(False, True),
)
WIDTHS, TOKENS = (4, 8, 16, 24, 32), (4, 6, 8, 12)
"""Some are as wide as a token, as 8 tokens or as the raw input: where projections are skipped."""


def draw_inputs(random: Random, number: int) -> tuple[int, ...]:
    return tuple(random.sample(range(number), random.randint(1, min(number, 4))))


def draw_choice(random: Random, shape: SupernetShape = SHAPE, num_blocks: int | None = None) -> NASRecConfig:
    """A choice of up to as many blocks as the shape has."""
    blocks = [
        BlockChoice(
            dense_op=random.choice(shape.dense_ops),
            sparse_op=random.choice(shape.sparse_ops),
            dense_width=random.choice([width for width in WIDTHS if width <= shape.dense_width]),
            num_tokens=random.choice([tokens for tokens in TOKENS if tokens <= shape.num_tokens]),
            dense_inputs=draw_inputs(random, number),
            sparse_inputs=draw_inputs(random, number),
            left=random.randrange(number),
            right=random.randrange(number),
            dense_to_sparse=random.random() < 0.5,
            fm=random.random() < 0.5,
        )
        for number in range(1, (num_blocks or random.randint(1, shape.num_blocks)) + 1)
    ]
    return NASRecConfig(
        embedding_dim=shape.embedding_dim,
        layer_norm=random.choice(shape.layer_norms),
        flat_tokens=random.choice(shape.flat_tokens),
        blocks=tuple(blocks),
    )


def draw_network(seed: int, shape: SupernetShape = SHAPE, dtype: torch.dtype = torch.double) -> NASRecNetwork:
    torch.manual_seed(seed)
    network = NASRecNetwork(supernet_shape(shape)).to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network


def draw_head(network: NASRecNetwork) -> None:
    """Have a new network's logits differ from zero."""
    for weight in network.logit.weights.values():
        nn.init.xavier_uniform_(weight)


def draw_rows(
    seed: int, shape: SupernetShape = SHAPE, num_rows: int = 5, dtype: torch.dtype = torch.double
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(num_rows, shape.num_dense, generator=generator, dtype=dtype)
    pooled = torch.randn(num_rows, shape.num_features, shape.embedding_dim, generator=generator, dtype=dtype)
    return dense, pooled
