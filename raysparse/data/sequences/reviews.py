"""Amazon reviews as events: the format `amazon`.

Lines of `user,item,rating,timestamp` without a header, as of 2014 (in those of 2018 the item comes first: give them a
header, and read them with `format: table`); with the header of 2023; or JSON lines with the keys of 2014 and 2018, or
those of 2023, whose times are in milliseconds.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as pa_json

from raysparse.data.delimited import LineFormat, TextRows, parse_block
from raysparse.data.lines import LineBlock, list_files, read_header
from raysparse.data.rejects import Rejects
from raysparse.data.sequences.config import SequencesConfig
from raysparse.data.sequences.event_rows import EventRule, line_events, read_lines
from raysparse.data.sequences.events import EventBlock
from raysparse.errors import DataError

_LINE = LineFormat(("line",), ("line",), "\x1f")
"""A delimiter that JSON never holds: the line is one column."""
_PLAIN = EventRule("user", "item", "timestamp", "unix_s", "rating")
_OLD_KEYS = EventRule("reviewerID", "asin", "unixReviewTime", "unix_s", "overall")
_NEW_KEYS = EventRule("user_id", "parent_asin", "timestamp", "unix_ms", "rating")
_NO_EVENT = "not one JSON object with the right kinds of values"


class Reviews:
    """Files of reviews, of one form or several."""

    def __init__(self, config: SequencesConfig) -> None:
        self._min_rating = config.min_rating
        self._paths = list_files(config.input, pattern=r".*\.(csv|txt|json|jsonl)(\.gz)?")

    def blocks(self, rejects: Rejects) -> Iterator[EventBlock]:
        """Read the events of all files (driver)."""
        for path in self._paths:
            columns, rule, parse = self._form(path)
            yield from line_events(path, read_lines(path, columns), parse, rule, rejects)

    def _form(self, path: str) -> tuple[tuple[str, ...], EventRule, Callable[[LineBlock], TextRows]]:
        """Find the names in the header (if any), the rule and the parser of a file from its first line."""
        first = read_header(path).decode("utf-8", "replace")
        if first.startswith("{"):
            rule = self._rated(_json_keys(path, first))
            return (), rule, lambda block: _parse_json(block, rule)
        header = tuple(first.split(",")) if "parent_asin" in first.split(",") else ()
        rule = self._rated(_NEW_KEYS if header else _PLAIN)
        missing = [name for name in rule.used if header and name not in header]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}; its first line reads {first[:500]!r}")
        form = LineFormat(header or ("user", "item", "rating", "timestamp"), rule.used, ",")
        return header, rule, lambda block: parse_block(block, form)

    def _rated(self, rule: EventRule) -> EventRule:
        rated = self._min_rating is not None
        return replace(rule, rating=rule.rating if rated else "", min_rating=self._min_rating or 0.0)


def _json_keys(path: str, line: str) -> EventRule:
    try:
        keys = list(json.loads(line))
    except ValueError as error:
        raise DataError(f"{path}:1: no JSON object ({error}); reviews as JSON lines, or as CSV, are read") from None
    for rule in (_NEW_KEYS, _OLD_KEYS):
        if rule.user in keys:
            return rule
    raise DataError(
        f"{path}:1: found the keys {', '.join(keys)}; reviews have {', '.join(_OLD_KEYS.used)} or "
        f"{', '.join(_NEW_KEYS.used)}"
    )


def _parse_json(block: LineBlock, rule: EventRule) -> TextRows:
    rows = parse_block(block, _LINE)
    kinds = {rule.user: pa.string(), rule.item: pa.string(), rule.time: pa.int64(), rule.rating: pa.float64()}
    schema = pa.schema([(name, kinds[name]) for name in rule.used])
    tables, kept, misfits = [schema.empty_table()], [rows.lines[:0]], dict(rows.misfits)
    for table, lines in _read_json(rows.columns["line"], rows.lines, schema):
        if table is None:
            misfits[int(lines[0])] = _NO_EVENT
        else:
            tables.append(table)
            kept.append(lines)
    whole = pa.concat_tables(tables).combine_chunks()
    columns = {name: pa.concat_arrays(whole[name].chunks or [pa.array([], kinds[name])]) for name in rule.used}
    return TextRows(columns, np.concatenate(kept), misfits)


def _read_json(
    texts: pa.Array, lines: npt.NDArray[np.int64], schema: pa.Schema
) -> Iterator[tuple[pa.Table | None, npt.NDArray[np.int64]]]:
    """Read lines at once; where one of them is wrong, halve them until it stands alone, with None for its table."""
    if not len(lines):
        return
    data = "\n".join(texts.to_pylist()).encode() + b"\n"
    try:
        table = pa_json.read_json(
            pa.BufferReader(data),
            pa_json.ReadOptions(use_threads=False, block_size=len(data)),
            pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        table = None
    if table is not None and table.num_rows == len(lines):
        yield table, lines
    elif len(lines) == 1:
        yield None, lines
    else:
        middle = len(lines) // 2
        yield from _read_json(texts.slice(0, middle), lines[:middle], schema)
        yield from _read_json(texts.slice(middle), lines[middle:], schema)
