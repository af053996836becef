import pytest
import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from raysparse.cost.record import cost_of
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.models import ModelConfig, build_model
from raysparse.models.dcn import CrossLayer, DCNConfig
from raysparse.models.deepfm import DeepFM, DeepFMConfig
from raysparse.models.dlrm import DLRM, DLRMConfig
from raysparse.models.layers import PairwiseDots
from raysparse.models.recommender import stack_pooled

SCHEMA = Schema(
    dense=(DenseFeature(name="x"), DenseFeature(name="y", optional=True)),
    ids=tuple(IdFeature(name=name, rows=10) for name in ("a", "b", "c")),
)


def test_pairwise_dots_are_the_lower_triangle_and_have_the_right_gradient():
    vectors = torch.randn(3, 5, 4, dtype=torch.double, requires_grad=True)
    dots = PairwiseDots(5)
    rows, columns = torch.tril_indices(5, 5, -1)
    expected = torch.einsum("bid,bjd->bij", vectors, vectors)[:, rows, columns]
    torch.testing.assert_close(dots(vectors), expected)
    assert torch.autograd.gradcheck(dots, (vectors,))
    parts = tuple(part.detach().requires_grad_() for part in vectors.split([1, 3, 1], dim=1))
    torch.testing.assert_close(dots(*parts), expected)
    assert torch.autograd.gradcheck(dots, parts)
    parts[1].requires_grad_(False)
    assert torch.autograd.gradcheck(dots, parts)


def test_deepfm_adds_all_pairs_once():
    model = DeepFM(DeepFMConfig(embedding_dim=4, deep=(8,)), num_dense=1, num_features=3)
    for parameter in [*model.first_order.parameters(), *model.deep[1].parameters()]:
        nn.init.zeros_(parameter)
    dense, pooled = torch.randn(2, 1), torch.randn(2, 3, 4)
    vectors = torch.cat([dense.unsqueeze(2) * model.vectors.weight, pooled], dim=1)
    pairs = sum((vectors[:, i] * vectors[:, j]).sum(1) for i in range(4) for j in range(i))
    torch.testing.assert_close(model(dense, pooled), pairs)


def test_a_cross_layer_follows_its_equation():
    layer = CrossLayer(5, rank=2)
    first, current = torch.randn(3, 5), torch.randn(3, 5)
    assert isinstance(layer.project, nn.Linear)
    matrix = layer.expand.weight @ layer.project.weight
    torch.testing.assert_close(layer(first, current), first * (current @ matrix.T + layer.expand.bias) + current)


@pytest.mark.parametrize(
    ("config", "macs"),
    [
        # 3 x 8 + 8 x 4 bottom; 4 x 4 x 4 products; 6 pairs + 4 -> 8 -> 1.
        (DLRMConfig(embedding_dim=4, bottom=(8,), top=(8,)), 3 * 8 + 8 * 4 + 4 * 4 * 4 + 10 * 8 + 8),
        # 6 vectors of 4: first order 24, deep 24 -> 8 -> 1.
        (DeepFMConfig(embedding_dim=4, deep=(8,)), 24 + 24 * 8 + 8),
        # 15 inputs: 2 cross layers of rank 2, deep 15 -> 8, logit of 23.
        (DCNConfig(embedding_dim=4, num_cross_layers=2, rank=2, deep=(8,)), 2 * (15 * 2 + 2 * 15) + 15 * 8 + 23),
    ],
)
def test_macs_are_those_of_the_matrix_products(config: ModelConfig, macs: int):
    model = build_model(config, SCHEMA, seed=1)
    cost = cost_of(model, SCHEMA)
    assert cost.macs == macs
    assert cost.embedding_bytes == 3 * 10 * 4 * 4
    assert cost.parameters == sum(parameter.numel() for parameter in model.head.parameters())


@pytest.mark.parametrize("config", [DLRMConfig(), DeepFMConfig(), DCNConfig(rank=None)])
def test_a_model_gives_a_logit_per_row_and_the_seed_its_weights(config: ModelConfig):
    heads = [build_model(config, SCHEMA, seed).head for seed in (1, 1, 2)]
    dense, pooled = torch.randn(6, 3), torch.randn(6, 3, 16)
    logits = [head(dense, pooled) for head in heads]
    assert logits[0].shape == (6,)
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0)
    assert not torch.allclose(logits[0], logits[2])


def test_a_model_without_dense_features_is_possible():
    model = DLRM(DLRMConfig(embedding_dim=4), num_dense=0, num_features=3)
    assert model(torch.zeros(2, 0), torch.randn(2, 3, 4)).shape == (2,)


def test_features_are_taken_by_name_whatever_the_order_of_the_look_up():
    pooled = torch.randn(2, 3, 4)
    shuffled = KeyedTensor(["c", "a", "b"], [4, 4, 4], pooled[:, [2, 0, 1]].reshape(2, 12))
    torch.testing.assert_close(stack_pooled(shuffled, ("a", "b", "c"), 4), pooled)
