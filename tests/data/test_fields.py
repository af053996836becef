from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from raysparse.data.fields import Faults, block_days, log_count, to_days, to_floats, to_integers, to_label, to_utc_days


def test_labels_are_0_or_1() -> None:
    faults = Faults(5)
    labels = to_label(pa.array(["0", "1", "2", None, "01"]), faults)
    assert labels.dtype == np.int8
    assert labels.tolist()[:2] == [0, 1]
    assert faults.reasons == dict.fromkeys((2, 3, 4), "the label is not 0 or 1")
    assert faults.good_rows().tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("companion", ["7", "wrong"])
def test_what_is_a_whole_number_does_not_depend_on_the_other_rows(companion: str) -> None:
    texts = ["1", "-3", "0x1F", "1.5", "1000000000000000000", " 4", None, companion]
    faults = Faults(8)
    values = to_integers(pa.array(texts), "I1", faults, optional=True)
    assert values[:2].tolist() == [1, -3]
    assert set(faults.reasons) == {2, 3, 4, 5} | ({7} if companion == "wrong" else set())
    assert faults.reasons[2] == "I1 is not a whole number"


@pytest.mark.parametrize("companion", ["7", "wrong"])
def test_what_is_a_number_does_not_depend_on_the_other_rows(companion: str) -> None:
    texts = ["1.5", "-2e3", ".5", "nan", "inf", "1e400", "1e39", None, companion]
    faults = Faults(9)
    values = to_floats(pa.array(texts), "price", faults)
    assert values[:3].tolist() == [1.5, -2000, 0.5]
    assert set(faults.reasons) == {3, 4, 5, 6, 7} | ({8} if companion == "wrong" else set())
    assert faults.reasons[4] == "price is not a number"
    assert faults.reasons[3] == faults.reasons[7] == "price is missing"


def test_log_count() -> None:
    counts = log_count(np.array([0, 1, -2, np.nan, 1e6]))
    assert counts.dtype == np.float32
    np.testing.assert_allclose(counts, [0, np.log(2), 0, np.nan, np.log(1_000_001)], rtol=1e-6)


def test_days_of_texts() -> None:
    def parse(text: str) -> str | None:
        try:
            return datetime.strptime(text, "%d.%m.%Y").strftime("%Y-%m-%d")
        except ValueError:
            return None

    faults = Faults(4)
    days = to_days(pa.array(["02.01.2013", "01.01.2013", "31.02.2013", None]), "when", parse, faults)
    assert [days.name(row) for row in range(4)] == ["2013-01-02", "2013-01-01", "", ""]
    assert faults.reasons == {2: "when is not a date", 3: "when is not a date"}


def test_days_of_timestamps() -> None:
    faults = Faults(4)
    seconds = np.array([86_399.0, 86_400.0, -1.0, 4_102_444_800.0])
    days = to_utc_days(seconds, "timestamp", faults)
    assert [days.name(row) for row in range(4)] == ["1970-01-01", "1970-01-02", "", ""]
    assert set(faults.reasons) == {2, 3}
    hours = to_utc_days(np.array([1413867600.0]), "timestamp", Faults(1), hours=True)
    assert hours.name(0) == "2014-10-21T05"


def test_block_days_are_equal_blocks() -> None:
    days = block_days(np.arange(70), 70, 7)
    assert np.bincount(days.codes).tolist() == [10] * 7
    assert days.names[-1] == "006"
