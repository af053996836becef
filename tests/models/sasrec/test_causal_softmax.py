from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from raysparse.models.sasrec import causal_softmax as module
from raysparse.models.sasrec.causal_softmax import causal_softmax


def drawn(num_sequences: int, num_heads: int, length: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Queries, keys and values, as they lie side by side in one tensor."""
    generator = torch.Generator().manual_seed(1)
    beside = torch.randn(num_sequences, length, 3 * num_heads * width, generator=generator, dtype=dtype)
    parts = beside.requires_grad_().chunk(3, dim=2)
    return tuple(part.unflatten(2, (num_heads, width)).transpose(1, 2) for part in parts)


@pytest.fixture(params=["torch", "whole", "parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's, all scores at once, or those of four items of some heads at a time, of fewer in the end."""
    torch.set_float32_matmul_precision("highest" if request.param == "torch" else "medium")
    if request.param == "parts":
        monkeypatch.setattr(module, "_SCORES_AT_A_TIME", 70)
        monkeypatch.setattr(module, "_QUERIES_AT_A_TIME", 4)
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(("num_heads", "length", "width"), [(1, 1, 3), (1, 4, 5), (2, 9, 3), (4, 11, 1)])
def test_it_attends_as_torch_does_and_its_gradients_are_the_same(num_heads: int, length: int, width: int):
    query, key, value = inputs = drawn(3, num_heads, length, width, torch.float64)
    found = causal_softmax(query, key, value)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=found.dtype)
    of_found, of_expected = (torch.autograd.grad((weights * one).sum(), inputs) for one in (found, expected))
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("parts")
def test_large_scores_neither_overflow_nor_vanish():
    query, key, value = (part.detach() for part in drawn(2, 1, 10, 4, torch.float32))
    found = causal_softmax(1e4 * query, key, value)
    torch.testing.assert_close(found, scaled_dot_product_attention(1e4 * query, key, value, is_causal=True))


@pytest.mark.usefixtures("parts")
def test_an_item_changes_nothing_before_it():
    query, key, value = (part.detach() for part in drawn(1, 2, 10, 4, torch.float32))
    before = causal_softmax(query, key, value)
    for part in (query, key, value):
        part[:, :, 6:] = 1e3
    torch.testing.assert_close(causal_softmax(query, key, value)[:, :, :6], before[:, :, :6], rtol=0, atol=0)


def test_with_dropout_shares_of_what_is_seen_are_left_out_and_the_others_grow():
    ones = torch.ones(1, 1, 64, 64)
    torch.manual_seed(1)
    dropped = causal_softmax(torch.zeros(1, 1, 64, 4), torch.zeros(1, 1, 64, 4), ones, dropout=0.5)[0, 0, :, 0]
    # Items see n others, each with a share of 1 / n: an even number of halves is left.
    seen = torch.arange(1, 65)
    left = dropped * seen / 2
    torch.testing.assert_close(left, left.round())
    assert 0.8 < float(dropped[16:].mean()) < 1.2
    assert float((left < seen).float().mean()) > 0.9
