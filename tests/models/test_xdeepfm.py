import pytest
import torch
from torch import Tensor, nn

from raysparse.config import check
from raysparse.cost.record import cost_of
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.errors import ConfigError
from raysparse.models import build_model, xdeepfm
from raysparse.models.xdeepfm import CompressedInteractions, InteractionLayer, XDeepFM, XDeepFMConfig

SCHEMA = Schema(
    dense=(DenseFeature(name="x"), DenseFeature(name="y", optional=True)),
    ids=tuple(IdFeature(name=name, rows=10) for name in ("a", "b", "c")),
)
WIDTHS = [(5,), (3, 4), (3, 4, 2)]


def by_the_equations(cin: CompressedInteractions, fields: Tensor) -> Tensor:
    """Equations 6 and 7 of the paper for one row `[M, D]`, one map and product at a time."""
    weights: list[Tensor] = []
    for layer in cin.hidden:
        assert isinstance(layer, InteractionLayer)
        weights.append(layer.weight)
    previous = fields
    sums: list[Tensor] = []
    for weight in [*weights, cin.last.weight]:
        maps = []
        for of_map in weight.detach():
            weighted = iter(of_map)
            products = [next(weighted) * (mine * other) for mine in previous for other in fields]
            maps.append(torch.stack(products).sum(0))
        previous = torch.stack(maps)
        sums.append(previous.sum(1))
    return torch.cat(sums)


@pytest.mark.parametrize("widths", WIDTHS)
def test_compressed_interactions_follow_their_equations(widths: tuple[int, ...]):
    torch.manual_seed(1)
    cin = CompressedInteractions(num_vectors=6, widths=widths).double()
    vectors = torch.randn(4, 6, 5, dtype=torch.double)
    expected = torch.stack([by_the_equations(cin, fields) for fields in vectors])
    assert expected.shape == (4, sum(widths))
    torch.testing.assert_close(cin(vectors), expected)


def test_layer_k_has_degree_k_plus_one():
    torch.manual_seed(2)
    cin = CompressedInteractions(num_vectors=3, widths=(2, 4, 3))
    vectors = torch.randn(5, 3, 4)
    once, twice = cin(vectors).split((2, 4, 3), dim=1), cin(2 * vectors).split((2, 4, 3), dim=1)
    for layer in range(3):
        torch.testing.assert_close(twice[layer], 2 ** (layer + 2) * once[layer])


@pytest.mark.parametrize("chunk", [1, 3 * 6 * 4, 2**20])
def test_the_gradient_is_right_whatever_is_in_memory_at_a_time(chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(xdeepfm, "CHUNK_PRODUCTS", chunk)
    torch.manual_seed(3)
    layer = InteractionLayer(num_previous=3, num_first=6, num_maps=2).double()
    previous = torch.randn(10, 3, dtype=torch.double, requires_grad=True)
    first = torch.randn(10, 6, dtype=torch.double, requires_grad=True)
    products = torch.einsum("ni,nj->nij", previous, first).flatten(1)
    torch.testing.assert_close(layer(previous, first), products @ layer.weight.T)
    assert torch.autograd.gradcheck(lambda *inputs: layer(*inputs[:2]), (previous, first, layer.weight))
    # Where the fields do not learn: a hidden layer has its previous one's weights to teach, the first has none.
    assert torch.autograd.gradcheck(lambda maps: layer(maps, first.detach()), (previous,))
    assert torch.autograd.gradcheck(lambda weight: layer(previous.detach(), first.detach()), (layer.weight,))


def test_the_gradient_of_all_layers_is_right():
    torch.manual_seed(4)
    cin = CompressedInteractions(num_vectors=3, widths=(2, 4, 3)).double()
    vectors = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(cin, (vectors,))


def test_a_hidden_layers_products_are_not_kept():
    batch_size, num_vectors, width, num_maps = 32, 12, 4, 10
    cin = CompressedInteractions(num_vectors, widths=(num_maps, num_maps, 3))
    vectors = torch.randn(batch_size, num_vectors, width, requires_grad=True)
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        cin(vectors)
    # The largest are the last layer's dot products.
    assert max(sizes) == batch_size * num_maps * num_vectors


@pytest.mark.parametrize("num_dense", [0, 2])
def test_the_logits_of_the_three_parts_are_added(num_dense: int):
    torch.manual_seed(5)
    head = XDeepFM(XDeepFMConfig(embedding_dim=4, cin=(3, 2), deep=(8,)), num_dense, num_features=3).double()
    dense = torch.randn(5, num_dense, dtype=torch.double)
    pooled = torch.randn(5, 3, 4, dtype=torch.double)
    expected = []
    for values, embeddings in zip(dense, pooled, strict=True):
        fields = torch.stack([*(value * v for value, v in zip(values, head.vectors.weight, strict=True)), *embeddings])
        fields = fields.detach()
        flat = fields.flatten()
        cin = by_the_equations(head.cin, fields)
        deep = head.deep(flat.unsqueeze(0)).squeeze(0)
        expected.append(head.first_order(flat) + cin @ head.cin_logit.weight.T + deep)
    torch.testing.assert_close(head(dense, pooled), torch.cat(expected))


def test_every_weight_learns_and_gradients_are_finite():
    head = build_model(XDeepFMConfig(), SCHEMA, seed=6).head
    pooled = torch.randn(16, 3, 16, requires_grad=True)
    nn.functional.binary_cross_entropy_with_logits(head(torch.randn(16, 3), pooled), torch.ones(16)).backward()
    for name, tensor in [*head.named_parameters(), ("pooled", pooled)]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.any(), name


def test_multiply_adds_are_those_of_the_closed_form():
    # 6 fields of 4. First layer: 5 maps of 4 columns, each from 36 products. Last: dot products of 5 maps and 6 fields,
    # and 3 sums of these.
    cin = 4 * 5 * 36 + 5 * 6 * 4 + 3 * 30
    logits = 6 * 4 + (5 + 3) + 24 * 8 + 8
    model = build_model(XDeepFMConfig(embedding_dim=4, cin=(5, 3), deep=(8,)), SCHEMA, seed=1)
    cost = cost_of(model, SCHEMA)
    assert cost.macs == cin + logits
    # Weights, 3 dense vectors of 4, biases of the linear part, the hidden layer and the deep logit.
    assert cost.parameters == 5 * 36 + 3 * 30 + logits + 3 * 4 + 1 + 8 + 1


@pytest.mark.parametrize("cin", [[], [4, 0]])
def test_a_config_without_maps_is_refused(cin: list[int]):
    with pytest.raises(ConfigError, match="cin"):
        check(XDeepFMConfig, {"kind": "xdeepfm", "cin": cin}, "job.yaml")
