"""A row per user and UTC day: the items of the day are the targets, those of the days before the history."""

import numpy as np

from raysparse.data.sequences.events import MICROSECONDS
from raysparse.data.sequences.histories import Histories, Places, Rows

MICROSECONDS_PER_DAY = 86_400 * MICROSECONDS


def by_day(histories: Histories, max_history: int) -> tuple[dict[str, Rows], int]:
    """Return the rows of each day (YYYY-MM-DD, ascending), users in their order, and how many rows had no target.

    A history is the user's last `max_history` items before the targets. On a user's first day there are none, and the
    first item becomes the history; where it is the day's only one, no target is left, and no row.
    """
    days = histories.times // MICROSECONDS_PER_DAY
    is_first = np.zeros(len(days), bool)
    is_first[histories.offsets[:-1]] = True
    starts = np.flatnonzero(is_first | (np.diff(days, prepend=-1) != 0))
    ends = np.append(starts[1:], len(days)).astype(np.int64)
    user_starts = np.maximum.accumulate(np.where(is_first[starts], starts, 0))
    target_starts = starts + is_first[starts]
    rows = Rows(np.maximum(user_starts, target_starts - max_history), target_starts, ends)
    keep = target_starts < ends
    return _group(rows.take(keep), days[starts[keep]]), int(np.count_nonzero(~keep))


def _group(rows: Rows, days: Places) -> dict[str, Rows]:
    if not len(rows):
        return {}
    order = np.argsort(days, kind="stable")
    names, starts = np.unique(days[order], return_index=True)
    pieces = np.split(order, starts[1:])
    return {str(np.datetime64(int(day), "D")): rows.take(chosen) for day, chosen in zip(names, pieces, strict=True)}
