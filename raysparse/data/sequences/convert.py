"""From files of events to a data set of sequences, on the driver alone.

The events are held in memory whole. A user, an item and a time are 16 bytes; with what sorting and writing take for a
while, it comes to some 80 bytes an event, 130 with days (measured with 10 million), beside the distinct names.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from raysparse.data.dataset import Day, Manifest
from raysparse.data.rejects import Rejects, TooManyRejectsError, check_limit, count_by_reason
from raysparse.data.schema import sequence_schema
from raysparse.data.sequences.by_day import by_day
from raysparse.data.sequences.check_ins import CheckIns
from raysparse.data.sequences.config import SequencesConfig
from raysparse.data.sequences.event_tables import EventTables
from raysparse.data.sequences.events import (
    EventBlock,
    Events,
    collect,
    core,
    count_ties,
    in_order,
    of_long_users,
    without_repeats,
)
from raysparse.data.sequences.histories import Histories, Rows, histories_of, write_items, write_rows
from raysparse.data.sequences.item_lists import ItemLists
from raysparse.data.sequences.leave_one_out import SHORTEST, leave_one_out, train_counts
from raysparse.data.sequences.ratings import Ratings
from raysparse.data.sequences.ready_split import ReadySplit, TrainInput
from raysparse.data.sequences.reviews import Reviews
from raysparse.errors import DataError


class EventReader(Protocol):
    """Files of events in one format; made on the driver, where it finds the files."""

    def blocks(self, rejects: Rejects) -> Iterator[EventBlock]:
        """Read the events in the order of the input (driver); DataError where a file is damaged."""
        ...


READERS: dict[str, Callable[[SequencesConfig], EventReader]] = {
    "text": ItemLists,
    "movielens": Ratings,
    "amazon": Reviews,
    "gowalla": CheckIns,
    "split": TrainInput,
    "table": EventTables,
}
"""Reader of each format of events, by its name."""


def open_sequences(config: SequencesConfig) -> EventReader | ReadySplit:
    """Find the files of a config (driver); DataError where they are not there."""
    return ReadySplit(config) if config.split == "ready" else READERS[config.format](config)


def convert(config: SequencesConfig, reader: EventReader | ReadySplit, path: str) -> Manifest:
    """Write the rows and items of a data set (driver) to the folder `path`, and return its manifest.

    DataError where the input cannot be read, has more than `max_bad_rows` bad rows, or leaves nothing to train on.
    """
    if isinstance(reader, ReadySplit):
        return _convert_split(config, reader, path)
    rejects = Rejects(config.max_bad_rows)
    events, num_low_rated = _read(reader, rejects, path)
    left_out: dict[str, int] = {f"events rated below {config.min_rating}": num_low_rated}
    events = _select(config, events, left_out)
    histories, names = histories_of(events)
    rows = _cut_rows(config, histories, left_out)
    leaves_out = config.split == "leave_one_out"
    # What is left out is not trained on, and must not count as popular.
    counted = histories.offsets[1:] - 2 if leaves_out else histories.offsets[1:]
    write_items(path, names, train_counts(histories, counted))
    num_ties = count_ties(events)
    notes = f"{num_ties} events are at the time of their user's event before; their order is the input's"
    return Manifest(
        source=_about(config, notes if num_ties else ""),
        data_schema=sequence_schema(histories.num_items),
        protocol="leave_one_out" if leaves_out else "days",
        days=_write(path, histories, rows),
        rejected=count_by_reason(rejects.rows),
        left_out=_counted(left_out),
    )


def _convert_split(config: SequencesConfig, reader: ReadySplit, path: str) -> Manifest:
    split = reader.read()
    write_items(path, split.names, train_counts(split.histories, split.train_ends))
    notes = f"the second-last item of {split.num_unknown} users is not known; their history in the test ends before it"
    return Manifest(
        source=_about(config, notes if split.num_unknown else ""),
        data_schema=sequence_schema(split.histories.num_items),
        protocol="leave_one_out",
        days=_write(path, split.histories, split.rows),
        left_out=_counted({"validation rows of users whose second-last item is not known": split.num_unknown}),
    )


def _read(reader: EventReader, rejects: Rejects, path: str) -> tuple[Events, int]:
    """Read all events, and count those that were left out for their rating."""
    blocks: list[EventBlock] = []
    try:
        blocks.extend(reader.blocks(rejects))
    except TooManyRejectsError:
        pass  # the limit is checked below
    finally:
        rejects.write(path, "00000")
    check_limit(rejects.rows, rejects.limit, path)
    return collect(blocks), sum(block.num_low_rated for block in blocks)


def _select(config: SequencesConfig, events: Events, left_out: dict[str, int]) -> Events:
    """Put the events in order, and leave out those that the config does not want."""
    num_read = len(events)
    events = without_repeats(in_order(events))
    left_out["repeats of an event (the same user, item and time)"] = num_read - len(events)
    num_read = len(events)
    events = core(events, config.min_user_events, config.min_item_events)
    enough = f"{config.min_user_events} events of a user and {config.min_item_events} of an item"
    outside = f"events outside the core of at least {enough}"
    left_out[outside] = num_read - len(events)
    if config.split == "leave_one_out" and len(events):
        events, num_short = of_long_users(events, SHORTEST)
        left_out[f"users with fewer than {SHORTEST} events"] = num_short
        num_read = len(events)
        # With those users items may have lost what they needed to stay.
        events = core(events, max(config.min_user_events, SHORTEST), config.min_item_events)
        left_out[outside] += num_read - len(events)
    if not len(events):
        what = "; ".join(f"{count} {reason}" for reason, count in _counted(left_out).items())
        raise DataError(
            f"{config.input} leaves no event ({what or 'none was read'}); give an `input` with more events, or lower "
            "`min_user_events`, `min_item_events` or `min_rating`"
        )
    return events


def _cut_rows(config: SequencesConfig, histories: Histories, left_out: dict[str, int]) -> dict[str, Rows]:
    if config.split == "leave_one_out":
        return leave_one_out(histories)
    rows, num_without_targets = by_day(histories, config.max_history)
    left_out["first days of a user with a single event, which has nothing before it"] = num_without_targets
    if not rows:
        raise DataError(f"{config.input}: no user has two events, so that there is nothing to predict")
    return rows


def _write(path: str, histories: Histories, rows: dict[str, Rows]) -> tuple[Day, ...]:
    return tuple(write_rows(path, day, histories, of_day) for day, of_day in rows.items())


def _about(config: SequencesConfig, notes: str) -> dict[str, Any]:
    about: dict[str, Any] = config.model_dump(mode="json")
    return about | {"notes": notes} if notes else about


def _counted(left_out: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in left_out.items() if count}
