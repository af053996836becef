"""The parts of a drifting stream, each made on its own: any day and part, in any order, in any process.

A part's random numbers come from a Philox generator keyed by (seed, day, part). What is written is made by steps
that round alike on every processor (look-ups in tables rounded to float32, float32 sums in a fixed order, a float64
comparison for the label), so that the bytes hang on the seed and on numpy's generators alone, but for a rounding
of about 1 in 10^8 per table entry.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysparse.data.drift.config import DriftConfig, schema
from raysparse.data.drift.teacher import (
    DENSE_FLOOR,
    PART_STREAM,
    day_teacher,
    probabilities,
    random_generator,
    world,
)

ROWS_PER_PART = 2**19
"""Rows of a part: eight row groups; at Criteo's shape 80 MB of columns, made within some 200 MB."""


@dataclass(frozen=True)
class DriftPart:
    """Rows of one part of a day, and what the teacher itself scores on them."""

    table: pa.Table
    teacher_log_loss_sum: float
    """Log loss (natural logarithm) of the teacher's own probabilities, summed over the rows."""


def parts(config: DriftConfig) -> list[tuple[int, int]]:
    """List every (day index, part number) of the stream, in order."""
    per_day = -(-config.rows_per_day // ROWS_PER_PART)
    return [(day_index, part) for day_index in range(config.num_days) for part in range(per_day)]


def day_name(config: DriftConfig, day_index: int) -> str:
    """Return the ISO date of a day."""
    return config.date_of(day_index).isoformat()


def generate_part(config: DriftConfig, day_index: int, part: int) -> DriftPart:
    """Make the rows of one part (any process), independent of every other part."""
    num_rows = min(ROWS_PER_PART, config.rows_per_day - part * ROWS_PER_PART)
    rng = random_generator(config, PART_STREAM, day_index, part)
    rows = world(config).draw(rng, num_rows, day_index)
    logits = day_teacher(config, day_index).logits(rows)
    labels = rng.random(num_rows) < probabilities(logits)
    log_loss = np.logaddexp(0.0, logits) - labels * logits
    dense = [np.float32(1.0 + number % 3) * (value - DENSE_FLOOR) for number, value in enumerate(rows.dense)]
    columns = [pa.array(column) for column in (labels.astype(np.int8), *dense, *rows.ids)]
    return DriftPart(pa.table(columns, schema=schema(config).arrow()), float(log_loss.sum()))
