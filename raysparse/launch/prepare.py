"""Raw logs to a day-partitioned data set, on as many machines as Ray has.

Two passes over the input, a task a span. The first counts rows, so that every row knows its line and its place in
the whole; the second encodes them. A source whose days lie together writes part files span by span; any other goes
through a group-by on the day, with the rows of a day put back in the order of the input. Part files are numbered by
span, so the output is the same bytes whatever the number of tasks at a time.
"""

import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data
from pydantic import ValidationError

from raysparse.data import drift
from raysparse.data.arrow import compute as pc
from raysparse.data.dataset import TEST, TRAIN, VALIDATION, Day, Manifest, PartFile, write_manifest, write_part
from raysparse.data.drift import DriftConfig
from raysparse.data.lines import Span, lay_out
from raysparse.data.rejects import Reject, Rejects, TooManyRejectsError, check_limit, count_by_reason, read_rejects
from raysparse.data.schema import sequence_schema
from raysparse.data.sequences import generated
from raysparse.data.sequences.config import GeneratedSequencesConfig, SequencesConfig
from raysparse.data.sequences.convert import convert, open_sequences
from raysparse.data.sequences.histories import write_file, write_items
from raysparse.data.sources import FileConfig, PrepareConfig, Source, open_source
from raysparse.data.sources.source import EncodedBlock
from raysparse.data.staging import claim
from raysparse.errors import ConfigError, DataError
from raysparse.launch.ray_data import quiet_ray_data
from raysparse.launch.tasks import run_tasks, task_items

_ROWS_PER_FILE = 2**20
"""Rows of a part file where a whole day is at hand: 16 row groups."""
_BYTES_PER_PARTITION = 256 * 2**20
_DAY, _PLACE = "day", "_place"

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WrittenPart:
    """A part file, and where it belongs."""

    day: str
    number: int
    file: PartFile


@dataclass(frozen=True)
class SpanResult:
    """What a task of the second pass has done."""

    parts: list[WrittenPart]
    num_rejected: int
    num_left_out: int


def prepare(config: PrepareConfig, output: str, overwrite: bool = False) -> Manifest:
    """Make the data set of `config` in the folder `output` and return its manifest (driver).

    Starts Ray on this machine where none is running; on a cluster, all machines have to see input and output.
    DataError where the input cannot be read, has more than `max_bad_rows` bad rows, or leaves a day empty, and where
    `output` is in use; an older data set there is replaced only with `overwrite`, once the new one is whole.
    """
    try:
        with quiet_ray_data():
            return _prepare(config, output, overwrite)
    except OSError as error:
        raise DataError(f"cannot read the input or write to {output}: {error}") from error


def _prepare(config: PrepareConfig, output: str, overwrite: bool) -> Manifest:
    if isinstance(config, DriftConfig):
        staging = claim(output, overwrite)
        manifest = _generate(config, staging.path)
    elif isinstance(config, GeneratedSequencesConfig):
        staging = claim(output, overwrite)
        manifest = _generate_sequences(config, staging.path)
    elif isinstance(config, SequencesConfig):
        reader = open_sequences(config)
        staging = claim(output, overwrite)
        manifest = convert(config, reader, staging.path)
    else:
        source = open_source(config)
        _check_schema(source)
        spans = _survey(source)
        staging = claim(output, overwrite)
        manifest = _convert(config, source, spans, staging.path)
    staging.require_ownership()
    write_manifest(staging.path, manifest)
    staging.finish()
    return manifest


def _check_schema(source: Source) -> None:
    """Refuse features that cannot be, before the first pass."""
    try:
        source.schema()
    except ValidationError as error:
        raise ConfigError("; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())) from error


def _survey(source: Source) -> list[Span]:
    """First pass: count the rows of every span."""
    spans = [replace(span, number=number) for number, span in enumerate(source.spans())]
    return lay_out(sorted(run_tasks(source.count, spans), key=lambda span: span.number))


def _convert(config: FileConfig, source: Source, spans: list[Span], path: str) -> Manifest:
    """Second pass: encode and write the rows, and account for those that could not be read."""
    limit = config.max_bad_rows
    list(run_tasks(lambda _: _read_beside(source, limit, path), [None]))
    write = _write_spans if source.ordered else _write_groups
    parts, num_left_out = write(source, spans, limit, path)
    rejects = read_rejects(path)
    check_limit(rejects, limit, path)
    days = _days(parts)
    _check_days(days, source.expected_days(spans), rejects, spans)
    about: dict[str, Any] = config.model_dump(mode="json")
    if source.notes:
        about["notes"] = f"{source.notes} ({num_left_out} rows)"
    return Manifest(source=about, data_schema=source.schema(), days=days, rejected=count_by_reason(rejects))


def _read_beside(source: Source, limit: int, path: str) -> None:
    rejects = Rejects(limit)
    try:
        source.read_beside(rejects)
    except TooManyRejectsError:
        pass  # the driver counts what is written below
    finally:
        rejects.write(path, "beside")


def _write_spans(source: Source, spans: list[Span], limit: int, path: str) -> tuple[list[WrittenPart], int]:
    """Each span writes its own part files."""
    parts: list[WrittenPart] = []
    num_rejected = num_left_out = 0
    for result in run_tasks(lambda span: _write_span(source, span, limit, path), spans):
        parts += result.parts
        num_left_out += result.num_left_out
        num_rejected += result.num_rejected
        if num_rejected > limit:
            break
    return parts, num_left_out


def _write_span(source: Source, span: Span, limit: int, path: str) -> SpanResult:
    rejects = Rejects(limit)
    parts: list[WrittenPart] = []
    num_left_out = 0
    for block in _encode_span(source, span, rejects, path):
        num_left_out += block.num_left_out
        for code in np.unique(block.days.codes):
            day = block.days.names[code]
            chosen = block.days.codes == code
            table = block.table if chosen.all() else block.table.filter(pa.array(chosen))
            parts.append(WrittenPart(day, block.part, write_part(path, day, block.part, table)))
    return SpanResult(parts, len(rejects.rows), num_left_out)


def _encode_span(source: Source, span: Span, rejects: Rejects, path: str) -> Iterator[EncodedBlock]:
    try:
        yield from source.read(span, rejects)
    except TooManyRejectsError:
        pass  # the driver counts what is written below
    finally:
        rejects.write(path, f"{span.number:05d}")


def _write_groups(source: Source, spans: list[Span], limit: int, path: str) -> tuple[list[WrittenPart], int]:
    """Rows are grouped by day over the cluster, and each group writes its day."""
    arrow = source.schema().arrow()

    def encode(batch: pa.Table) -> Iterator[pa.Table]:
        for pickled in batch["item"].to_pylist():
            yield from _tagged(source, pickle.loads(pickled), limit, path)

    def write(group: pa.Table) -> pa.Table:
        day = group[_DAY][0].as_py()
        rows = group.take(pc.sort_indices(group[_PLACE])).select(arrow.names).cast(arrow)
        starts = range(0, rows.num_rows, _ROWS_PER_FILE)
        slices = [rows.slice(start, _ROWS_PER_FILE).combine_chunks() for start in starts]
        parts = [WrittenPart(day, number, write_part(path, day, number, table)) for number, table in enumerate(slices)]
        return pa.table({"result": [pickle.dumps(parts)]})

    rows = task_items(spans).map_batches(encode, batch_format="pyarrow", batch_size=None).materialize()
    check_limit(read_rejects(path), limit, path)
    # Ray makes 200 partitions of anything: one a quarter of a gigabyte, and enough to keep the machines busy.
    partitions = max(
        math.ceil(rows.size_bytes() / _BYTES_PER_PARTITION), 2 * int(ray.cluster_resources().get("CPU", 1))
    )
    days = rows.groupby(_DAY, num_partitions=partitions).map_groups(write, batch_format="pyarrow")
    return [part for row in days.iter_rows() for part in pickle.loads(row["result"])], 0


def _tagged(source: Source, span: Span, limit: int, path: str) -> Iterator[pa.Table]:
    """Give the encoded rows with their day and place, which the grouping needs; at least one table, for its schema."""
    arrow = source.schema().arrow()
    fields = [*arrow, pa.field(_DAY, pa.string()), pa.field(_PLACE, pa.int64())]
    yield pa.schema(fields).empty_table()
    for block in _encode_span(source, span, Rejects(limit), path):
        days = pa.array(block.days.names, pa.string()).take(pa.array(block.days.codes))
        yield block.table.append_column(fields[-2], days).append_column(fields[-1], pa.array(block.rows))


def _generate(config: DriftConfig, path: str) -> Manifest:
    """Generate a stream: a task a part, and the teacher's own loss of each day."""
    losses: dict[str, float] = {}
    parts: list[WrittenPart] = []
    results = list(run_tasks(lambda part: _generate_part(config, part, path), drift.parts(config)))
    for part, loss in sorted(results, key=lambda result: (result[0].day, result[0].number)):
        parts.append(part)
        losses[part.day] = losses.get(part.day, 0.0) + loss
    days = tuple(day.model_copy(update={"best_ne": _ne(day, losses[day.day])}) for day in _days(parts))
    return Manifest(source=config.model_dump(mode="json"), data_schema=drift.schema(config), days=days)


def _generate_part(config: DriftConfig, part: tuple[int, int], path: str) -> tuple[WrittenPart, float]:
    day_index, number = part
    generated = drift.generate_part(config, day_index, number)
    day = drift.day_name(config, day_index)
    return WrittenPart(day, number, write_part(path, day, number, generated.table)), generated.teacher_log_loss_sum


def _generate_sequences(config: GeneratedSequencesConfig, path: str) -> Manifest:
    """Generate sequences: a task a range of users, and the counts of the items where there are not too many."""
    written: list[WrittenPart] = []
    counts = np.zeros(config.num_items + 1 if generated.has_counts(config) else 0, np.int64)
    numbered = list(enumerate(generated.parts(config)))
    for parts, items, events in run_tasks(lambda part: _generate_users(config, part, path), numbered):
        written += parts
        counts[items] += events
    if generated.has_counts(config):
        write_items(path, generated.item_names(config), counts[1:])
    leaves_out = config.num_days is None
    days = {day.day: day for day in _days(written)}
    return Manifest(
        source=config.model_dump(mode="json"),
        data_schema=sequence_schema(config.num_items),
        protocol="leave_one_out" if leaves_out else "days",
        days=tuple(days[name] for name in (TRAIN, VALIDATION, TEST)) if leaves_out else tuple(days.values()),
    )


def _generate_users(
    config: GeneratedSequencesConfig, part: tuple[int, tuple[int, int]], path: str
) -> tuple[list[WrittenPart], Integers, Integers]:
    """Write the rows of a range of users; the items that are trained on, and how often each is."""
    number, (first, end) = part
    made = generated.generate_users(config, first, end)
    files = ((day, write_file(path, day, number, made.histories, rows)) for day, rows in made.rows.items())
    return [WrittenPart(day, number, file) for day, file in files], made.items, made.counts


def _ne(day: Day, log_loss_sum: float) -> float | None:
    """Give the normalized entropy of a day's summed log loss; None where all labels are the same."""
    rate = day.base_rate
    if rate in (0.0, 1.0):
        return None
    entropy = -rate * math.log(rate) - (1 - rate) * math.log1p(-rate)
    return log_loss_sum / day.rows / entropy


def _days(parts: list[WrittenPart]) -> tuple[Day, ...]:
    by_day: dict[str, list[WrittenPart]] = {}
    for part in parts:
        if part.file.rows:
            by_day.setdefault(part.day, []).append(part)
    return tuple(
        Day(day=day, files=tuple(part.file for part in sorted(by_day[day], key=lambda part: part.number)))
        for day in sorted(by_day)
    )


def _check_days(days: tuple[Day, ...], expected: list[str], rejects: list[Reject], spans: list[Span]) -> None:
    """Refuse days without rows: those that are known to be there, and holes that are all bad rows.

    A single date that is off, before all days or after them, is a bad row like any other.
    """
    files = sorted({span.path for span in spans})
    origin = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
    known = [day.day for day in days]
    rejected = {row.day for row in rejects if row.day and known and known[0] < row.day < known[-1]}
    empty = sorted({*expected, *rejected} - set(known))
    if not days or empty:
        what = f"day {empty[0]} of {origin}" if empty else origin
        first = next((row for row in rejects if empty and row.day == empty[0]), rejects[0] if rejects else None)
        why = f": {first.file}:{first.line}: {first.reason}" if first is not None else ""
        fewer = ", or ask for fewer days" if expected else ""
        raise DataError(f"{what} has no row that can be read{why}; mend the input{fewer}")
