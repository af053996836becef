from typing import Any

import pytest
import torch

from raysparse.models.sasrec import jagged
from raysparse.models.sasrec.attention import CausalAttention, causal_linear, jagged_linear
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.gates import Gate, prefix_mean
from tests.models.sasrec.sequences import LENGTHS, encoder_of, offsets_of, values_of

KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"norm": "post"},
    {"attention": "linear"},
    {"attention": ("softmax", "linear"), "num_heads": 4},
    {"gate": "paper"},
    {"gate": "context"},
    {"num_heads": (1, 3), "head_dim": 4, "ffn_width": (8, 24)},
)

keys_of_kinds = pytest.mark.parametrize("keys", KINDS, ids=str)


def opened(**keys: Any) -> Any:
    """An encoder whose gates, where it has some, are no longer 1."""
    encoder = encoder_of(**keys)
    for module in encoder.modules():
        if isinstance(module, Gate):
            torch.nn.init.normal_(module.channels.weight)
    return encoder


@keys_of_kinds
def test_an_encoding_does_not_depend_on_who_else_is_in_the_batch(keys: dict[str, Any]):
    encoder, values = opened(**keys), values_of(LENGTHS, 16)
    together = encoder(values, offsets_of(LENGTHS)).split(LENGTHS)
    parts = values.split(LENGTHS)
    for number, length in enumerate(LENGTHS):
        alone = encoder(parts[number], offsets_of([length]))
        torch.testing.assert_close(alone, together[number], rtol=1e-5, atol=1e-5)
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    permuted = encoder(torch.cat([parts[i] for i in order]), offsets_of([LENGTHS[i] for i in order]))
    torch.testing.assert_close(permuted, torch.cat([together[i] for i in order]), rtol=1e-5, atol=1e-5)


@keys_of_kinds
def test_how_sequences_are_padded_changes_nothing(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    encoder, values, offsets = opened(**keys), values_of(LENGTHS, 16).requires_grad_(), offsets_of(LENGTHS)
    few = encoder(values, offsets)
    (gradient,) = torch.autograd.grad(few.square().sum(), values)
    assert len(jagged.buckets_of(offsets)) == 1
    monkeypatch.setattr(jagged, "_PLACES_PER_BUCKET", 1)
    assert len(jagged.buckets_of(offsets)) > 3
    many = encoder(values, offsets)
    torch.testing.assert_close(many, few, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(many.square().sum(), values)[0], gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "lengths", [[2] * 127 + [2048], [2] * 60 + [500], [1] * 100 + [300], [3] * 80 + [2000, 2000]], ids=sum
)
def test_no_sequence_is_padded_to_a_much_longer_one(lengths: list[int]):
    buckets = jagged.buckets_of(offsets_of(lengths))
    assert sorted(int(n) for bucket in buckets for n in bucket.kept.sum(1)) == sorted(lengths)
    assert sum(bucket.places.numel() for bucket in buckets) <= 1.5 * sum(lengths) + 512


@keys_of_kinds
def test_no_encoding_depends_on_what_comes_later_or_on_others(keys: dict[str, Any]):
    encoder, offsets = opened(**keys), offsets_of(LENGTHS)
    values = values_of(LENGTHS, 16).requires_grad_()
    encoded = encoder(values, offsets)
    for row, place in ((3, 0), (3, 4), (4, 11)):
        item = int(offsets[row]) + place
        (gradient,) = torch.autograd.grad(encoded[item].square().sum(), values, retain_graph=True)
        reached = gradient.abs().sum(1) > 0
        expected = torch.zeros(len(values), dtype=torch.bool)
        expected[int(offsets[row]) : item + 1] = True
        assert reached.equal(expected)


ENDS = tuple(int(end) - 1 for end, length in zip(offsets_of(LENGTHS)[1:], LENGTHS, strict=True) if length)


@keys_of_kinds
@pytest.mark.parametrize("places", [ENDS, (0, 4, 5, 22, 41), ENDS[:-1], tuple(range(42)), ()], ids=str)
@pytest.mark.parametrize("places_per_bucket", [1, 256])
def test_wanted_encodings_are_those_among_all(
    keys: dict[str, Any], places: tuple[int, ...], places_per_bucket: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jagged, "_PLACES_PER_BUCKET", places_per_bucket)
    encoder, offsets = opened(**keys), offsets_of(LENGTHS)
    values, wanted = values_of(LENGTHS, 16).requires_grad_(), torch.tensor(places, dtype=torch.int64)
    weights = torch.randn(len(places), 16, generator=torch.Generator().manual_seed(2))
    expected = encoder(values, offsets)[wanted]
    found = encoder(values, offsets, wanted)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    of_found, of_expected = (torch.autograd.grad((one * weights).sum(), values)[0] for one in (found, expected))
    torch.testing.assert_close(of_found, of_expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("places", [ENDS, (0, 1, 2)], ids=["ends", "others"])
def test_the_last_block_works_out_what_is_wanted_alone(places: tuple[int, ...]):
    encoder = encoder_of()
    seen: list[int] = []
    for name, layer in encoder.named_modules():
        if name.endswith((".attention.out", ".feed_forward.inner")):
            layer.register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
    encoder(values_of(LENGTHS, 16), offsets_of(LENGTHS), torch.tensor(places))
    assert seen == [42, 42, len(places), len(places)]


def test_softmax_attention_is_the_masked_product_of_a_padded_batch():
    torch.manual_seed(1)
    attention = CausalAttention(8, num_heads=2, head_dim=4, kind="softmax", dropout=0.0).double()
    torch.nn.init.normal_(attention.project.weight)
    values, offsets = values_of(LENGTHS, 8).double(), offsets_of(LENGTHS)
    found = attention(values, jagged.buckets_of(offsets)).split(LENGTHS)
    for part, encoded in zip(values.split(LENGTHS), found, strict=True):
        # Padded in front, which a causal order does not hide: only a mask does.
        padded = torch.cat([torch.full((20 - len(part), 8), 7.0, dtype=torch.float64), part])
        seen = torch.ones(20, 20).tril().bool() & (torch.arange(20) >= 20 - len(part))
        heads = []
        for query, key, value in zip(
            *(p.chunk(2, dim=1) for p in attention.project(padded).chunk(3, dim=1)), strict=True
        ):
            scores = (query @ key.T / 4**0.5).masked_fill(~seen, -torch.inf)
            heads.append(torch.softmax(scores, dim=1) @ value)
        expected = attention.out(torch.cat(heads, dim=1))[20 - len(part) :]
        torch.testing.assert_close(encoded, expected)


def linear_map(vectors: torch.Tensor) -> torch.Tensor:
    mapped = torch.nn.functional.elu(vectors)
    return mapped / (mapped.norm(dim=-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 150])
def test_linear_attention_in_chunks_is_the_masked_product(length: int):
    query, key, value = torch.randn(3, 2, 4, length, 8, generator=torch.Generator().manual_seed(1))
    query[0, 0, 0] = 0.0  # nothing to divide by
    expected = (linear_map(query) @ linear_map(key).transpose(2, 3)).tril() @ value / 8**0.5
    torch.testing.assert_close(causal_linear(query, key, value), expected, rtol=1e-5, atol=1e-5)


def test_jagged_products_are_the_masked_product_of_a_padded_batch():
    parts = torch.randn(3, sum(LENGTHS), 2, 4, generator=torch.Generator().manual_seed(1))
    query, key, value = (part.clone().requires_grad_() for part in parts)
    found = jagged_linear(query, key, value, offsets_of(LENGTHS))
    padded = [
        torch.nn.utils.rnn.pad_sequence(list(part.split(LENGTHS)), batch_first=True) for part in (query, key, value)
    ]
    kept = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    scores = torch.einsum("nihd,njhd->nhij", linear_map(padded[0]), linear_map(padded[1]))
    scores = scores * kept[:, None, None, :]
    expected = (torch.einsum("nhij,njhd->nihd", scores, padded[2]) / 4**0.5)[kept]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for of_found, of_expected in zip(
        torch.autograd.grad(found.square().sum(), (query, key, value)),
        torch.autograd.grad(expected.square().sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(of_found, of_expected, rtol=1e-5, atol=1e-5)
    assert jagged_linear(query[:0], key[:0], value[:0], torch.tensor([0, 0])).shape == (0, 2, 4)


def test_the_last_item_sees_the_same_with_and_without_a_causal_order():
    query, key, value = torch.randn(3, 1, 2, 100, 4, generator=torch.Generator().manual_seed(1))
    causal = causal_linear(query, key, value)[0, :, -1]
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    whole = jagged_linear(query, key, value, torch.tensor([0, 100]))
    torch.testing.assert_close(whole[-1], causal, rtol=1e-5, atol=1e-5)


def test_linear_attention_learns_where_a_query_is_zero():
    query = torch.zeros(1, 1, 3, 4, requires_grad=True)
    causal_linear(query, torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4)).sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("gate", ["paper", "context"])
def test_a_gated_network_starts_as_the_one_without_bit_by_bit(gate: str):
    plain, gated = encoder_of(), encoder_of(gate=gate)
    missing = gated.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    for module in gated.modules():
        if isinstance(module, Gate):
            module.close()
    values, offsets = values_of(LENGTHS, 16), offsets_of(LENGTHS)
    assert gated(values, offsets).equal(plain(values, offsets))


def test_the_context_of_a_gate_is_the_mean_of_all_so_far():
    values = values_of(LENGTHS, 4)
    expected = [part[: place + 1].mean(0) for part in values.split(LENGTHS) for place in range(len(part))]
    torch.testing.assert_close(prefix_mean(values, jagged.buckets_of(offsets_of(LENGTHS))), torch.stack(expected))


def test_a_sequence_that_was_not_cut_is_refused():
    with pytest.raises(AssertionError, match="a sequence of 13 items, but max_length is 12"):
        encoder_of()(values_of((1, 13), 16), offsets_of((1, 13)))


def test_a_batch_of_no_items_has_no_encodings():
    assert encoder_of(gate="context")(values_of((), 16), torch.tensor([0, 0, 0])).shape == (0, 16)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encodings_are_normalised_once(norm: str):
    encoder = encoder_of(norm=norm)
    encoded = encoder(values_of(LENGTHS, 16), offsets_of(LENGTHS))
    torch.testing.assert_close(encoded.mean(1), torch.zeros(len(encoded)), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded.var(1, correction=0), torch.ones(len(encoded)), rtol=0, atol=1e-4)
    norms = sum(isinstance(module, torch.nn.LayerNorm) for module in encoder.modules())
    assert norms == {"pre": 6, "post": 5}[norm]


def test_dropout_is_for_training_alone():
    encoder, values, offsets = encoder_of(dropout=0.5), values_of(LENGTHS, 16), offsets_of(LENGTHS)
    assert encoder(values, offsets).equal(encoder(values, offsets))
    encoder.train()
    assert not encoder(values, offsets).equal(encoder(values, offsets))


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"num_heads": 5}, "num_heads that divide embedding_dim 64, or a head_dim; found 5"),
        ({"attention": ("linear",)}, "attention of one value, or of one per layer: 2; found 1"),
        ({"num_heads": (1, 2, 4)}, "num_heads of one value, or of one per layer: 2; found 3"),
        ({"ffn_width": (64,)}, "ffn_width of one value, or of one per layer: 2; found 1"),
    ],
)
def test_widths_that_do_not_fit_are_refused(keys: dict[str, Any], fault: str):
    with pytest.raises(ValueError, match=fault):
        SASRecConfig.model_validate(keys)
