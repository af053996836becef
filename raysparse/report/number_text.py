"""How numbers are written for people, on the page and on the console alike."""

import math
from datetime import datetime
from decimal import Decimal
from typing import Any

MISSING = "-"
"""What stands where a number is missing, such as the AUC of a day with one class only."""

_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_STEPS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


def whole(value: float | None) -> str:
    """Write a count in full, with commas: `1,234,567`."""
    return MISSING if _missing(value) else f"{value:,.0f}"


def fixed(value: float | None, digits: int = 4) -> str:
    """Write a number with so many digits after the point: `0.8123`."""
    return MISSING if _missing(value) else f"{value:.{digits}f}"


def signed_percent(value: float | None) -> str:
    """Write a difference that is already in percent, always with its sign: `+0.125 %`."""
    return MISSING if _missing(value) else f"{value:+.3f} %"


def percent(share: float | None) -> str:
    """Write a share of one as percent: `23.71 %`."""
    return MISSING if share is None or _missing(share) else f"{100 * share:.2f} %"


def short(value: float | None) -> str:
    """Write a count from 10,000 on with three figures and k, M, G or T: `117 k`; a smaller one in full."""
    if value is None or _missing(value):
        return MISSING
    if abs(value) < 9999.5:
        return f"{value:,.0f}"
    # 999.6 k would be rounded to 1000 k: it is 1.00 M
    size, letter = next((size, letter) for size, letter in _STEPS if abs(value) >= size * 0.9995)
    return f"{_three_figures(value / size)}{letter}"


def mebibytes(num_bytes: float | None) -> str:
    """Write bytes as MiB, without the unit: `158.7`."""
    if num_bytes is None or _missing(num_bytes):
        return MISSING
    size = num_bytes / 2**20
    return "<0.1" if 0 < size < 0.05 else f"{size:,.1f}"


def tick(value: float) -> str:
    """Write a round number on an axis as briefly as it goes: `20 k`."""
    for size, letter in _STEPS:
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def duration(seconds: float | None) -> str:
    """Write a time span in its two largest units: `2.5 s`, `43 s`, `7 min 17 s`, `1 h 05 min`, `2 d 03 h`."""
    if seconds is None or _missing(seconds):
        return MISSING
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    total = round(seconds)
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def counted(number: int, noun: str) -> str:
    """Write a count with its noun: `1 day`, `1,234 days`."""
    return f"{whole(number)} {noun}" + ("" if number == 1 else "s")


def signed(value: float | None, digits: int = 4) -> str:
    """Write a difference, always with its sign: `+0.0123`."""
    return MISSING if _missing(value) else f"{value:+.{digits}f}"


def power_of_ten(value: int | None) -> str:
    """Write a count that nobody would read in full: `2.3 × 10²¹`; below a million in full."""
    if value is None or value < 1_000_000:
        return whole(value)
    mantissa, exponent = f"{Decimal(value):.1e}".split("e")  # it may be too large for a float
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def to_the_minute(moment: Any) -> str:
    """Write an ISO timestamp without seconds; what is none, as it is."""
    try:
        return datetime.fromisoformat(str(moment)).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return str(moment)


def _three_figures(value: float) -> str:
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}"


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
