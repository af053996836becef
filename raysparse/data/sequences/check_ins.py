"""Check-ins of Gowalla as events (user, ISO time, latitude, longitude, place): the format `gowalla`."""

from collections.abc import Iterator

from raysparse.data.delimited import LineFormat, parse_block
from raysparse.data.lines import list_files
from raysparse.data.rejects import Rejects
from raysparse.data.sequences.config import SequencesConfig
from raysparse.data.sequences.event_rows import EventRule, line_events, read_lines
from raysparse.data.sequences.events import EventBlock

_RULE = EventRule("user", "place", "time", "date")
_FORM = LineFormat(("user", "time", "latitude", "longitude", "place"), _RULE.used)


class CheckIns:
    """Tab separated check-ins, those of a user newest first or in any other order."""

    def __init__(self, config: SequencesConfig) -> None:
        self._paths = list_files(config.input, pattern=r".*\.(txt|tsv)(\.gz)?")

    def blocks(self, rejects: Rejects) -> Iterator[EventBlock]:
        """Read the events of all files (driver)."""
        for path in self._paths:
            yield from line_events(path, read_lines(path), lambda block: parse_block(block, _FORM), _RULE, rejects)
