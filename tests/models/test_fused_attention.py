from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from raysparse.models import fused_attention as module
from raysparse.models.fused_attention import fused_attention

MASK = torch.tensor([True, False, True, True, True])


@pytest.fixture
def inputs() -> tuple[Tensor, ...]:
    """Queries, keys and values, as they lie side by side in one tensor."""
    beside = torch.randn(3, 5, 3 * 2 * 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    return tuple(part.unflatten(2, (2, 4)).transpose(1, 2) for part in beside.chunk(3, dim=2))


@pytest.fixture(params=["highest", "medium"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize(("mask", "causal"), [(None, True), (MASK.unsqueeze(0), False), (None, False)])
def test_it_attends_as_torch_does_and_its_gradients_are_the_same(
    inputs: tuple[Tensor, ...], mask: Tensor | None, causal: bool
):
    query, key, value = inputs
    found = fused_attention(query, key, value, mask, causal=causal)
    expected = scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    of_found, of_expected = (torch.autograd.grad((weights * one).sum(), inputs) for one in (found, expected))
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("precision")
def test_with_dropout_shares_of_what_is_seen_are_left_out_and_the_others_grow():
    zeros, ones = torch.zeros(1, 1, 64, 4), torch.ones(1, 1, 64, 64)
    torch.manual_seed(1)
    dropped = fused_attention(zeros, zeros, ones, causal=True, dropout=0.5)[0, 0, :, 0]
    # Items see n others, each with a share of 1 / n: a number of doubled shares is left.
    seen = torch.arange(1, 65)
    left = dropped * seen / 2
    torch.testing.assert_close(left, left.round())
    assert 0.8 < float(dropped[16:].mean()) < 1.2
    assert float((left < seen).float().mean()) > 0.9


def test_its_products_are_taken_at_the_highest_precision_both_ways_and_no_others(
    inputs: tuple[Tensor, ...], precision: str, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []

    def attention(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        attended = query * key * value
        attended.register_hook(lambda _: seen.append(torch.get_float32_matmul_precision()))
        return attended

    monkeypatch.setattr(module, "scaled_dot_product_attention", attention)
    query, key, value = inputs
    fused_attention(query, key, value).sum().backward()
    assert seen == ["highest", "highest"]
    assert torch.get_float32_matmul_precision() == precision


@pytest.mark.usefixtures("precision")
def test_what_needs_no_gradient_gets_none(inputs: tuple[Tensor, ...]):
    query, key, value = (part.detach() for part in inputs)
    assert not fused_attention(query, key, value).requires_grad
    fused_attention(query, key.requires_grad_(), value).sum().backward()
    assert key.grad is not None
    assert query.grad is None
    assert value.grad is None
