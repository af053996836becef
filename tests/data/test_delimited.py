import pytest

from raysparse.data.delimited import LineFormat, TextRows, parse_block
from raysparse.data.lines import LineBlock

TABS = LineFormat(columns=("a", "b"), used=("a", "b"))
QUOTED = LineFormat(columns=("a", "b"), used=("a", "b"), delimiter=",", quoted=True)
OPEN_QUOTE = "a quote that is not closed"


def parse(data: bytes, form: LineFormat) -> TextRows:
    num_lines = data.count(b"\n") + (not data.endswith(b"\n"))
    return parse_block(LineBlock(data, num_lines, 1, 0, 0), form)


def rows_of(rows: TextRows) -> list[tuple[str, ...]]:
    return list(zip(*(column.to_pylist() for column in rows.columns.values()), strict=True))


def test_empty_values_are_null() -> None:
    rows = parse(b"1\t\n\t2", TABS)
    assert rows_of(rows) == [("1", None), (None, "2")]
    assert rows.lines.tolist() == [0, 1]
    assert rows.misfits == {}


def test_quotes_mean_nothing_between_tabs() -> None:
    assert rows_of(parse(b'"\t2\n3\t"4\n', TABS)) == [('"', "2"), ("3", '"4')]


def test_each_misfit_has_its_line_and_reason_and_costs_no_other_row() -> None:
    data = b"1\t2\n3\n\n4\t5\t6\n\xff\t7\n8\r9\t10\n11\t12\r\n"
    rows = parse(data, TABS)
    assert rows_of(rows) == [("1", "2"), ("11", "12")]
    assert rows.lines.tolist() == [0, 6]
    assert rows.misfits == {
        1: "1 instead of 2 columns",
        2: "an empty line",
        3: "3 instead of 2 columns",
        4: "bytes that are not UTF-8",
        5: "a carriage return inside the line",
    }


@pytest.mark.parametrize(
    ("data", "rows", "misfits"),
    [
        (b'"x,y",1\n2,"say ""so"""\n', [("x,y", "1"), ("2", 'say "so"')], {}),
        (b'a,"b\nc,d\n"e",f\n', [("c", "d"), ("e", "f")], {0: OPEN_QUOTE}),
        (b'x,y\na,"b', [("x", "y")], {1: OPEN_QUOTE}),
        (b'a,"b\n', [], {0: OPEN_QUOTE}),
        (b'a,b,"\n', [], {0: OPEN_QUOTE}),
        (b'a,"b\nc,d\ne,"f\ng,h,i\n', [("c", "d")], {0: OPEN_QUOTE, 2: OPEN_QUOTE, 3: "3 instead of 2 columns"}),
        (b'a"b,c"d\n', [('a"b', 'c"d')], {}),
    ],
)
def test_an_open_quote_swallows_no_other_line(data: bytes, rows: list, misfits: dict[int, str]) -> None:
    parsed = parse(data, QUOTED)
    assert rows_of(parsed) == rows
    assert parsed.misfits == misfits


@pytest.mark.parametrize("row", [b"q", b"q\tq\tq"])
def test_places_are_right_far_into_a_block(row: bytes) -> None:
    lines = [b"text\t%d" % number for number in range(300_000)]
    for bad in (3, 150_000, 299_999):
        lines[bad] = row
    parsed = parse(b"\n".join(lines), TABS)
    assert list(parsed.misfits) == [3, 150_000, 299_999]
    values = parsed.columns["b"].cast("int64").to_numpy()
    assert (values == parsed.lines).all()
    assert len(values) == 299_997


def test_a_line_longer_than_the_reader_takes_at_a_time() -> None:
    parsed = parse(b"1\t2\n" + b"x" * 3_000_000 + b"\ty\n3\n", TABS)
    assert parsed.columns["b"].to_pylist() == ["2", "y"]
    assert list(parsed.misfits) == [2]


def test_a_delimiter_of_two_bytes() -> None:
    parsed = parse(b"1::2\n1:2\n", LineFormat(("a", "b"), ("b",), "::"))
    assert parsed.columns["b"].to_pylist() == ["2"]
    assert parsed.misfits == {1: "1 instead of 2 columns"}


def test_latin_1() -> None:
    parsed = parse("Léon\t1\n".encode("latin-1"), LineFormat(("a", "b"), ("a", "b"), encoding="latin-1"))
    assert parsed.columns["a"].to_pylist() == ["Léon"]
