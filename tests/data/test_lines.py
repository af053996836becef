import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysparse.data import lines
from raysparse.data.lines import LineBlock, Span, count_rows, cut_file, lay_out, list_files, read_blocks, read_header
from raysparse.errors import DataError


def numbered_lines(spans: list[Span]) -> list[tuple[int, int, bytes]]:
    """(line in the file, row in the input, text) of all lines, as the blocks say."""
    found: list[tuple[int, int, bytes]] = []
    for span in lay_out([count_rows(span) for span in spans]):
        blocks: list[LineBlock] = list(read_blocks(span))
        assert sum(block.num_lines for block in blocks) == span.num_rows
        for block in blocks:
            texts = block.data.removesuffix(b"\n").split(b"\n")
            assert len(texts) == block.num_lines
            found += [(block.first_line + n, block.first_row + n, text) for n, text in enumerate(texts)]
    return found


@given(
    texts=st.lists(st.binary(max_size=6).map(lambda raw: raw.replace(b"\n", b"")), min_size=1, max_size=12),
    end=st.booleans(),
    span_bytes=st.integers(1, 40),
)
def test_every_line_is_read_once_with_its_number(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], end: bool, span_bytes: int
) -> None:
    if not end and not texts[-1]:
        texts[-1] = b"x"  # a last line of nothing is no line
    path = tmp_path_factory.mktemp("lines") / "raw.txt"
    path.write_bytes(b"\n".join(texts) + (b"\n" if end else b""))
    expected = [(row + 1, row, text) for row, text in enumerate(texts)]
    assert numbered_lines(cut_file(str(path), span_bytes=span_bytes)) == expected


def test_rows_run_on_over_files_and_lines_do_not(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes(b"h1,h2\n1,2\n3,4\n")
    spans = [span for name in ("a.csv", "b.csv") for span in cut_file(str(tmp_path / name), ("h1", "h2"), 8)]
    assert [found[:2] for found in numbered_lines(spans)] == [(2, 0), (3, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("block_bytes", [5, 16, 64, 1000])
def test_compressed_files_are_streamed_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(lines, "SPAN_BYTES", block_bytes)
    texts = [b"row %d" % row for row in range(30)]
    path = tmp_path / "raw.txt.gz"
    path.write_bytes(gzip.compress(b"header\n" + b"\n".join(texts)))
    spans = cut_file(str(path), ("header",))
    assert numbered_lines(spans) == [(row + 2, row, text) for row, text in enumerate(texts)]
    span = count_rows(spans[0])
    assert len(list(read_blocks(span))) <= span.num_parts


def test_part_numbers_of_spans_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SPAN_BYTES", 10)
    for name in ("a.gz", "b.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"0123456\n" * 7))
    spans = lay_out([count_rows(span) for name in ("a.gz", "b.gz") for span in cut_file(str(tmp_path / name))])
    parts = [block.part for span in spans for block in read_blocks(span)]
    assert len(parts) == len(set(parts))
    assert parts == sorted(parts)


def test_a_cut_gz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "day_0.gz"
    whole = gzip.compress(b"".join(b"%d\n" % (row * 7919) for row in range(5000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"day_0\.gz is cut off or damaged"):
        count_rows(cut_file(str(path))[0])
    path.write_bytes(b"this is no gzip at all")
    with pytest.raises(DataError, match=r"day_0\.gz is cut off or damaged"):
        read_header(str(path))


@pytest.mark.parametrize("content", [b"", b"label\tI1\n"])
def test_a_file_without_rows_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train\.txt holds no rows"):
        lay_out([count_rows(span) for span in cut_file(str(path), ("label", "I1") if content else ())])


def test_header_loses_line_end_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    assert read_header(str(path)) == b"a,b"


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("test.txt", "train.txt", "readme.md"):
        (tmp_path / name).write_text("x")
    assert [Path(path).name for path in list_files(str(tmp_path), ("train.txt",))] == ["train.txt"]
    assert [Path(path).name for path in list_files(str(tmp_path), (), r".*\.txt")] == ["test.txt", "train.txt"]
    assert [Path(path).name for path in list_files(str(tmp_path / "*.md"))] == ["readme.md"]
    with pytest.raises(DataError, match="found no file of this source at .*set `input`"):
        list_files(str(tmp_path / "none.txt"))


def test_a_packed_file_that_is_not_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.txt.bz2"
    path.write_bytes(b"x")
    with pytest.raises(DataError, match="pack it with gzip"):
        cut_file(str(path))


def test_a_file_beside_its_own_gz_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "a.csv.gz", "b.csv"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"a.csv lies beside .*a.csv.gz, and its rows would be read twice"):
        list_files(str(tmp_path))
    assert list_files(str(tmp_path), preferred=("b.csv",)) == [str(tmp_path / "b.csv")]


def test_a_file_may_have_a_name_like_a_glob_and_what_is_missing_is_named_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "x[1].csv").write_text("x")
    assert list_files(str(tmp_path / "x[1].csv")) == [str(tmp_path / "x[1].csv")]
    with pytest.raises(DataError, match="set `weather` to a file"):
        list_files(str(tmp_path / "none.csv"), key="weather")
