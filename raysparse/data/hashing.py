"""Ids from raw text: FNV-1a, a finaliser, and the fold into the rows of a table.

One rule for every type of id: its UTF-8 text (an integer's decimal digits) is hashed with 64-bit FNV-1a
(Fowler, Noll, Vo; draft-eastlake-fnv), mixed with the finaliser of MurmurHash3 (Appleby), because the low bits of
FNV-1a alone are poor for short texts, and folded to `1 + hash % (rows - 1)`. Row 0 is kept for a missing id.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysparse.data.arrow import compute as pc
from raysparse.data.schema import MISSING_ID

OFFSET_BASIS = 0xCBF29CE484222325
PRIME = 0x100000001B3

_WORD = 0xFFFFFFFFFFFFFFFF
_ROWS_AT_A_TIME = 16_384
"""Hashes of so many rows stay in the second-level cache while the byte positions are walked."""
_FEW_ROWS = 24
"""Below so many rows a byte at a time in Python is cheaper than a pass of numpy."""
_LONG_TEXT = 10
"""Mean bytes from which looking a frequent text up in a dictionary is cheaper than hashing it again."""
_SAMPLE_ROWS = 2_048

Hashes = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int32]


def fnv1a_64(values: pa.Array) -> Hashes:
    """64-bit FNV-1a of each text or binary value, `[rows]`; a null hashes as the empty text (any process)."""
    data, starts, lengths = _byte_ranges(values)
    hashes = np.full(len(values), OFFSET_BASIS, np.uint64)
    for first in range(0, len(values), _ROWS_AT_A_TIME):
        rows = slice(first, first + _ROWS_AT_A_TIME)
        hashes[rows] = _hash_rows(data, starts[rows], lengths[rows])
    return hashes


def mix_64(hashes: Hashes) -> Hashes:
    """Apply the 64-bit finaliser of MurmurHash3 (fmix64), which spreads every input bit over all output bits."""
    mixed = hashes ^ (hashes >> np.uint64(33))
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed


def hash_ids(values: pa.Array, rows: int) -> Ids:
    """Row of the table for each text, `[rows of values]`; empty and null texts are missing (any process)."""
    if _repeats_long_texts(values):
        encoded = values.dictionary_encode(null_encoding="encode")
        return _hash_each(encoded.dictionary, rows)[encoded.indices.to_numpy(zero_copy_only=False)]
    return _hash_each(values, rows)


def hash_id_lists(values: pa.ListArray, rows: int) -> pa.ListArray:
    """Rows of the table for each list of texts; empty texts in a list and null lists give no id (any process)."""
    texts = values.flatten()
    present = np.asarray(pc.greater(pc.binary_length(texts), 0).fill_null(False))
    kept = np.concatenate(([0], np.cumsum(present)))
    sizes = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    ends = np.concatenate(([0], np.cumsum(sizes)))
    ids = pa.array(hash_ids(texts, rows)[present], pa.int32())
    list_type = pa.list_(pa.field("element", pa.int32(), nullable=False))
    return pa.ListArray.from_arrays(pa.array(kept[ends], pa.int32()), ids, type=list_type)


def _repeats_long_texts(values: pa.Array) -> bool:
    if int(_byte_ranges(values)[2].sum()) <= _LONG_TEXT * len(values):
        return False
    sample = values.slice(0, _SAMPLE_ROWS)
    return len(sample.unique()) < len(sample) / 2


def _hash_each(values: pa.Array, rows: int) -> Ids:
    ids = (mix_64(fnv1a_64(values)) % np.uint64(rows - 1)).astype(np.int32) + np.int32(1)
    ids[_byte_ranges(values)[2] == 0] = MISSING_ID
    return ids


def _byte_ranges(values: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the bytes of all values, and where each value starts and how long it is (0 for a null)."""
    large = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    _, offsets_buffer, data_buffer = values.buffers()
    if offsets_buffer is None or len(values) == 0:
        empty = np.zeros(len(values), np.int64)
        return np.zeros(0, np.uint8), empty, empty
    width = np.int64 if large else np.int32
    offsets = np.frombuffer(offsets_buffer, width)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    lengths = np.diff(offsets)
    if values.null_count:
        lengths[np.asarray(values.is_null())] = 0
    return data, offsets[:-1], lengths


def _hash_rows(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Hashes:
    """Walk the byte positions over all rows at once; longest rows first, so that those left are a prefix."""
    hashes = np.full(len(starts), OFFSET_BASIS, np.uint64)
    order = None
    if lengths.min() != lengths.max():
        order = np.argsort(-lengths, kind="stable")
        starts, lengths = starts[order], lengths[order]
    longer_than = len(lengths) - np.searchsorted(lengths[::-1], np.arange(lengths[0]), side="right")
    prime = np.uint64(PRIME)
    for position, num_rows in enumerate(longer_than):
        if num_rows < _FEW_ROWS:
            _finish_rows(hashes[:num_rows], data, starts + position, lengths - position)
            break
        active = hashes[:num_rows]
        active ^= data[starts[:num_rows] + position]
        active *= prime
    if order is None:
        return hashes
    unsorted = np.empty_like(hashes)
    unsorted[order] = hashes
    return unsorted


def _finish_rows(
    hashes: Hashes, data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> None:
    for row in range(len(hashes)):
        value = int(hashes[row])
        for byte in data[starts[row] : starts[row] + lengths[row]].tobytes():
            value = (value ^ byte) * PRIME & _WORD
        hashes[row] = value
