"""The days of a data set that a run reads."""

from raysparse.data.dataset import Dataset, Day
from raysparse.errors import ConfigError


def select_days(dataset: Dataset, first_day: str | None, last_day: str | None) -> tuple[Day, ...]:
    """Return the days from `first_day` to `last_day`; ConfigError where one is no day of the data set."""
    names = [day.day for day in dataset.days]
    for key, bound in (("data.first_day", first_day), ("data.last_day", last_day)):
        if bound is not None and bound not in names:
            raise ConfigError(f"{key}: found {bound!r}; {dataset.path} has the days {names[0]} to {names[-1]}")
    first = names.index(first_day) if first_day is not None else 0
    last = names.index(last_day) if last_day is not None else len(names) - 1
    if first > last:
        raise ConfigError(f"data.first_day {first_day} comes after data.last_day {last_day}")
    return dataset.days[first : last + 1]
