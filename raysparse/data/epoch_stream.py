"""A stream of epochs: what was left out of them is predicted, the rest is learned."""

from raysparse.data.dataset import TEST, VALIDATION, Day
from raysparse.data.selection import part_of
from raysparse.data.stream import DayStream


class EpochStream(DayStream):
    """Reads the days that `selection.select_days` makes of epochs. Every rank."""

    def scored_day(self, day: Day) -> Day:
        """The validation part, and at the end the test part."""
        return part_of(self.dataset, TEST if day.day == TEST else VALIDATION)
