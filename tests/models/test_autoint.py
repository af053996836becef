import pytest
import torch
from torch import Tensor, nn

from raysparse.config import check
from raysparse.cost.record import cost_of
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.errors import ConfigError
from raysparse.models import build_model
from raysparse.models.autoint import AutoInt, AutoIntConfig, InteractingLayer

SCHEMA = Schema(
    dense=(DenseFeature(name="x"), DenseFeature(name="y", optional=True)),
    ids=tuple(IdFeature(name=name, rows=10) for name in ("a", "b", "c")),
)
SMALL = AutoIntConfig(embedding_dim=4, num_layers=2, num_heads=2, head_dim=3, deep=(8,))


def by_the_equations(layer: InteractingLayer, fields: Tensor) -> Tensor:
    """Equations 5 to 8 of the paper for one row `[M, D]`, one field, head and pair at a time."""
    query, key, value, residual = layer.project.weight.detach().chunk(4)
    head_dim = len(query) // layer.num_heads
    vectors = []
    for field in fields:
        heads = []
        for head in range(layer.num_heads):
            rows = slice(head * head_dim, (head + 1) * head_dim)
            similar = [((query[rows] @ field) @ (key[rows] @ other)).exp() for other in fields]
            weights = [one / sum(similar) for one in similar]
            values = [weight * (value[rows] @ other) for weight, other in zip(weights, fields, strict=True)]
            heads.append(torch.stack(values).sum(0))
        vectors.append((torch.cat(heads) + residual @ field).clamp(min=0.0))
    return torch.stack(vectors)


def large_weights(module: nn.Module) -> None:
    """Weights with which attention is far from uniform."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()


def test_an_interacting_layer_follows_its_equations():
    torch.manual_seed(1)
    layer = InteractingLayer(num_inputs=4, num_heads=3, head_dim=2).double()
    large_weights(layer)
    vectors = torch.randn(5, 7, 4, dtype=torch.double)
    expected = torch.stack([by_the_equations(layer, fields) for fields in vectors])
    torch.testing.assert_close(layer(vectors), expected)


def test_an_interacting_layer_knows_no_order_of_the_fields():
    torch.manual_seed(2)
    layer = InteractingLayer(num_inputs=4, num_heads=2, head_dim=3)
    large_weights(layer)
    vectors, order = torch.randn(3, 6, 4), torch.randperm(6)
    torch.testing.assert_close(layer(vectors[:, order]), layer(vectors)[:, order])


def test_the_gradient_of_an_interacting_layer_is_right():
    torch.manual_seed(3)
    layer = InteractingLayer(num_inputs=3, num_heads=2, head_dim=2).double()
    large_weights(layer)
    vectors = torch.randn(2, 4, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (vectors,))


@pytest.mark.parametrize("num_dense", [0, 2])
def test_the_logits_of_attention_and_deep_network_are_added(num_dense: int):
    torch.manual_seed(4)
    head = AutoInt(SMALL, num_dense, num_features=3).double()
    large_weights(head)
    dense = torch.randn(5, num_dense, dtype=torch.double)
    pooled = torch.randn(5, 3, 4, dtype=torch.double)
    first, second = head.attention
    assert isinstance(first, InteractingLayer)
    assert isinstance(second, InteractingLayer)
    expected = []
    for values, embeddings in zip(dense, pooled, strict=True):
        fields = torch.stack([*(value * v for value, v in zip(values, head.vectors.weight, strict=True)), *embeddings])
        fields = fields.detach()
        attended = by_the_equations(second, by_the_equations(first, fields)).flatten()
        expected.append(head.attention_logit(attended) + head.deep(fields.flatten().unsqueeze(0)).squeeze(0))
    torch.testing.assert_close(head(dense, pooled), torch.cat(expected))


def test_every_weight_learns_and_gradients_are_finite():
    head = build_model(AutoIntConfig(), SCHEMA, seed=5).head
    pooled = torch.randn(16, 3, 16, requires_grad=True)
    nn.functional.binary_cross_entropy_with_logits(head(torch.randn(16, 3), pooled), torch.ones(16)).backward()
    for name, tensor in [*head.named_parameters(), ("pooled", pooled)]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.any(), name


def test_multiply_adds_are_those_of_the_closed_form():
    # 6 fields. Projections to 4 times 2 heads of 3, from 4 and then from 6; two products of all pairs in each layer.
    projections = 6 * 4 * 24 + 6 * 6 * 24
    attention = 2 * (2 * 2 * 6 * 6 * 3)
    logits = 6 * 6 + 24 * 8 + 8
    model = build_model(SMALL, SCHEMA, seed=1)
    cost = cost_of(model, SCHEMA)
    assert cost.macs == projections + attention + logits
    # Weights, 3 dense vectors of 4, biases of the two logits and the hidden layer.
    assert cost.parameters == 4 * 24 + 6 * 24 + logits + 3 * 4 + 1 + 8 + 1


def test_a_config_without_layers_is_refused():
    with pytest.raises(ConfigError, match="num_layers"):
        check(AutoIntConfig, {"kind": "autoint", "num_layers": 0}, "job.yaml")
