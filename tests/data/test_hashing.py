import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysparse.data.hashing import OFFSET_BASIS, PRIME, fnv1a_64, hash_id_lists, hash_ids, mix_64

# From the test vectors of the FNV reference code (Noll).
PUBLISHED = {
    "": 0xCBF29CE484222325,
    "a": 0xAF63DC4C8601EC8C,
    "b": 0xAF63DF4C8601F1A5,
    "fo": 0x08985907B541D342,
    "foo": 0xDCB27518FED9D577,
    "foob": 0xDD120E790C2512AF,
    "fooba": 0xCAC165AFA2FEF40A,
    "foobar": 0x85944171F73967E8,
    "chongo was here!\n": 0x46810940EFF5F915,
}


def scalar_fnv1a(text: str) -> int:
    value = OFFSET_BASIS
    for byte in text.encode():
        value = (value ^ byte) * PRIME % 2**64
    return value


def scalar_mix(value: int) -> int:
    for constant in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * constant % 2**64
    return value ^ value >> 33


def test_published_answers() -> None:
    hashes = fnv1a_64(pa.array(list(PUBLISHED)))
    assert [int(value) for value in hashes] == list(PUBLISHED.values())
    # The same texts many times over, so that the pass over all rows does the work and not the one for few rows.
    many = fnv1a_64(pa.array(list(PUBLISHED) * 5_000))
    assert np.array_equal(many, np.tile(hashes, 5_000))


def test_finaliser() -> None:
    assert mix_64(np.array([0, 1], np.uint64)).tolist() == [0, 0xB456BCFC34C2CB2C]


@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=80), st.integers(2, 2**31 - 1))
def test_ids_are_as_defined(texts: list[str | None], rows: int) -> None:
    expected = [1 + scalar_mix(scalar_fnv1a(text)) % (rows - 1) if text else 0 for text in texts]
    assert hash_ids(pa.array(texts, pa.string()), rows).tolist() == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_slices_and_types_hash_alike(kind: pa.DataType) -> None:
    texts = [f"http://example.org/{number % 7}/{'x' * (number % 50)}" for number in range(5_000)]
    whole = hash_ids(pa.array(texts).cast(kind), 1_000_000)
    assert np.array_equal(hash_ids(pa.array(["skipped", *texts]).cast(kind).slice(1), 1_000_000), whole)
    assert whole[:3].tolist() == [1 + scalar_mix(scalar_fnv1a(text)) % 999_999 for text in texts[:3]]


def test_repeated_long_texts_hash_as_single_ones() -> None:
    text = "a text that is long enough to be looked up"
    repeated = hash_ids(pa.array([text, None, ""] * 100), 1000)
    assert repeated.tolist() == [1 + scalar_mix(scalar_fnv1a(text)) % 999, 0, 0] * 100


def test_row_0_is_for_missing_ids_alone() -> None:
    ids = hash_ids(pa.array([str(number) for number in range(10_000)]), 3)
    assert set(ids.tolist()) == {1, 2}


def test_rows_are_used_evenly() -> None:
    ids = hash_ids(pa.array([str(number) for number in range(100_000)]), 101)
    counts = np.bincount(ids, minlength=101)
    assert counts[0] == 0
    # 1000 expected in each row, standard deviation 31.6.
    assert counts[1:].min() > 850
    assert counts[1:].max() < 1150


def test_lists() -> None:
    lists = hash_id_lists(pa.array([["a", "", "b"], [], None, [None, "a"]], pa.list_(pa.string())), 1000)
    a, b = hash_ids(pa.array(["a", "b"]), 1000).tolist()
    assert lists.to_pylist() == [[a, b], [], [], [a]]
    assert not lists.type.value_field.nullable
    sliced = pa.array([["x"], ["a"], ["b", "a"]], pa.list_(pa.string())).slice(1)
    assert hash_id_lists(sliced, 1000).to_pylist() == [[a], [b, a]]
