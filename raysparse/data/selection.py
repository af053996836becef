"""The days of a data set that a run goes through.

Where a data set leaves out each user's last events there are no days in time, and a run goes through epochs instead:

    epoch-000         the validation part is predicted, then the train part is learned
    epoch-001         the validation part is predicted with what one epoch has taught, the train part learned again
    ...
    epoch-E           the validation part is predicted with what E epochs have taught; nothing is learned
    test              the test part is predicted, once
"""

from collections.abc import Iterable

from raysparse.data.dataset import TEST, TRAIN, Dataset, Day
from raysparse.errors import ConfigError

EPOCH = "epoch-"
"""How the names of epochs begin."""


def select_days(
    dataset: Dataset, first_day: str | None, last_day: str | None, num_epochs: int | None = None
) -> tuple[Day, ...]:
    """Return the days from `first_day` to `last_day`, or those of `num_epochs`, with the files that are learned.

    ConfigError where a day is none of the data set's, and where epochs are asked of days or days of epochs.
    """
    if dataset.manifest.protocol == "leave_one_out":
        return _epochs(dataset, first_day, last_day, num_epochs)
    if num_epochs is not None:
        raise ConfigError(
            f"data.epochs: found {num_epochs}, but {dataset.path} is a stream of days, each of which is learned once; "
            "leave data.epochs out, or give a data set of sequences prepared with split=leave_one_out"
        )
    names = [day.day for day in dataset.days]
    for key, bound in (("data.first_day", first_day), ("data.last_day", last_day)):
        if bound is not None and bound not in names:
            raise ConfigError(f"{key}: found {bound!r}; {dataset.path} has the days {names[0]} to {names[-1]}")
    first = names.index(first_day) if first_day is not None else 0
    last = names.index(last_day) if last_day is not None else len(names) - 1
    if first > last:
        raise ConfigError(f"data.first_day {first_day} comes after data.last_day {last_day}")
    return dataset.days[first : last + 1]


def are_epochs(days: Iterable[str]) -> bool:
    """Whether a run's days, by name, are epochs and a test; of one that goes on the test is still to come."""
    return any(day == TEST or day.startswith(EPOCH) for day in days)


def part_of(dataset: Dataset, name: str) -> Day:
    """Return the TRAIN, VALIDATION or TEST part of a data set that leaves out each user's last events."""
    return next(day for day in dataset.days if day.day == name)


def _epochs(dataset: Dataset, first_day: str | None, last_day: str | None, num_epochs: int | None) -> tuple[Day, ...]:
    if num_epochs is None:
        raise ConfigError(
            f"data.epochs: not given, but {dataset.path} leaves out each user's last events; give how often its train "
            "part is learned at most, such as data.epochs=100"
        )
    for key, bound in (("data.first_day", first_day), ("data.last_day", last_day)):
        if bound is not None:
            raise ConfigError(f"{key}: found {bound!r}, but {dataset.path} has no days in time; leave it out")
    train = part_of(dataset, TRAIN)
    learned = [train.model_copy(update={"day": f"{EPOCH}{number:03d}"}) for number in range(num_epochs)]
    return (*learned, Day(day=f"{EPOCH}{num_epochs:03d}", files=()), Day(day=TEST, files=()))
