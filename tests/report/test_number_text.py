import pytest

from raysparse.report.number_text import (
    counted,
    duration,
    fixed,
    mebibytes,
    percent,
    power_of_ten,
    short,
    signed,
    signed_percent,
    tick,
    to_the_minute,
    whole,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9999.4, "9,999"),
        (9999.6, "10.0 k"),
        (12_345, "12.3 k"),
        (117_400.0, "117 k"),
        (999_600, "1.00 M"),
        (54_200_177, "54.2 M"),
        (3.2e9, "3.20 G"),
        (None, "-"),
        (float("nan"), "-"),
    ],
)
def test_short(value: float | None, text: str):
    assert short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5, "2.5 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (437.2, "7 min 17 s"),
        (3599.6, "1 h 00 min"),
        (3923, "1 h 05 min"),
        (86_399, "1 d 00 h"),
        (2 * 86_400 + 3 * 3600, "2 d 03 h"),
        (None, "-"),
    ],
)
def test_duration(seconds: float | None, text: str):
    assert duration(seconds) == text


def test_the_others():
    assert whole(1_234_567) == "1,234,567"
    assert whole(None) == "-"
    assert fixed(0.81234) == "0.8123"
    assert fixed(float("inf")) == "-"
    assert percent(0.2371) == "23.71 %"
    assert signed_percent(0.1251) == "+0.125 %"
    assert signed_percent(-2.0) == "-2.000 %"
    assert mebibytes(3 * 2**20) == "3.0"
    assert mebibytes(1) == "<0.1"
    assert mebibytes(0) == "0.0"
    assert [tick(value) for value in (0, 0.5, 250, 20_000, 1.5e6)] == ["0", "0.5", "250", "20 k", "1.5 M"]
    assert [signed(value) for value in (0.01234, -0.5, None)] == ["+0.0123", "-0.5000", "-"]
    assert [counted(number, "day") for number in (0, 1, 1234)] == ["0 days", "1 day", "1,234 days"]
    assert to_the_minute("2026-11-03T10:12:44+00:00") == "2026-11-03 10:12"
    assert to_the_minute("soon") == "soon"


def test_counts_beyond_reading_are_powers_of_ten():
    texts = [power_of_ten(value) for value in (None, 999_999, 1_000_000, 99_600_000, 7 * 10**400)]
    assert texts == ["-", "999,999", "1.0 × 10⁶", "1.0 × 10⁸", "7.0 × 10⁴⁰⁰"]
