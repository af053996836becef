"""Ratings of MovieLens as events: the format `movielens`."""

from collections.abc import Iterator

from raysparse.data.delimited import parse_block
from raysparse.data.rejects import Rejects
from raysparse.data.sequences.config import SequencesConfig
from raysparse.data.sequences.event_rows import EventRule, line_events, read_lines
from raysparse.data.sequences.events import EventBlock
from raysparse.data.sources.movielens_files import column_names, find_layout


class Ratings:
    """The ratings of a folder, whichever layout it has."""

    def __init__(self, config: SequencesConfig) -> None:
        self._layout = find_layout(config.input)
        rated = config.min_rating is not None
        self._rule = EventRule(
            "user", "item", "timestamp", rating="rating" if rated else "", min_rating=config.min_rating or 0.0
        )

    def blocks(self, rejects: Rejects) -> Iterator[EventBlock]:
        """Read the events of the ratings' file (driver)."""
        path, form = self._layout.ratings, self._layout.rating_format
        lines = read_lines(path, column_names(self._layout))
        return line_events(path, lines, lambda block: parse_block(block, form), self._rule, rejects)
