from typing import Any

import pytest

from raysparse.train.arm import TRAINED
from raysparse.train.ranking_summary import RANKING_METRICS
from raysparse.train.summary import DENSE, summarize
from tests.report.runs import record


def arms_of(*history: dict[str, Any]) -> dict[str, Any]:
    return summarize(list(history))["arms"]


def test_the_dense_arm_is_the_trained_one():
    assert DENSE == TRAINED


def test_gaps_are_relative_to_the_dense_arm_wherever_it_stands():
    arms = arms_of(record("1", "sparse", ne=0.88), record("1", TRAINED, ne=0.8))
    assert list(arms) == [TRAINED, "sparse"]
    assert arms["sparse"]["ne_gap_percent"] == pytest.approx(10.0)
    assert arms[TRAINED]["ne_gap_percent"] == 0.0


def test_without_a_dense_arm_the_first_one_stands_for_it():
    assert arms_of(record("1", "a", ne=0.8), record("1", "b", ne=0.6))["b"]["ne_gap_percent"] == pytest.approx(-25.0)


def test_arms_in_the_shadow_count_for_nothing():
    served = [record("1", TRAINED), record("2", TRAINED)]
    shadow = [record("1", "sparse.candidate", shadow=True), record("2", "sparse.candidate", shadow=True)]
    assert summarize([*shadow, *served]) == summarize(served)


def test_the_last_half_is_the_streams_not_the_arms():
    dense = [record(f"{i}", TRAINED, ne=0.8) for i in range(5)]
    gaps = {"1": 0.88, "2": 0.84, "3": 0.808}  # 10, 5 and 1 %
    arms = arms_of(*dense, *(record(day, "late", ne=ne) for day, ne in gaps.items()), record("0", "gone", ne=0.88))
    assert arms["late"]["ne_gap_percent"] == pytest.approx(16 / 3)
    assert arms["late"]["ne_gap_percent_last_half"] == pytest.approx(3.0)
    assert arms["gone"]["ne_gap_percent_last_half"] is None


def test_days_without_a_score_leave_no_gap():
    arms = arms_of(
        record("1", TRAINED, ne=0.8, warm_up=True),
        record("2", TRAINED, ne=None),
        record("3", TRAINED, ne=0.8),
        record("1", "sparse", ne=3.0, warm_up=True),
        record("2", "sparse", ne=0.9),
        record("3", "sparse", ne=0.88),
        record("4", "sparse", ne=0.9),
    )
    assert arms["sparse"]["ne_gap_percent"] == pytest.approx(10.0)


def test_size_swaps_and_churn():
    arms = arms_of(
        record("1", TRAINED, macs=1000),
        record("1", "static", macs=250, swapped=False),
        record("1", "sparse", macs=300, swapped=False),
        record("2", "sparse", macs=300, swapped=True, churn=0.2),
        record("3", "sparse", macs=200),
        record("4", "sparse", macs=250, swapped=True, churn=0.1),
    )
    structure = ("macs", "macs_share", "num_swaps", "churn")
    assert [arms["sparse"][name] for name in structure] == [250, 0.25, 2, pytest.approx(0.15)]
    assert [arms["static"][name] for name in structure] == [250, 0.25, 0, None]
    assert [arms[TRAINED][name] for name in structure] == [1000, 1.0, None, None]


def test_a_history_without_days_has_no_arms():
    assert summarize([]) == {
        "days": 0,
        "last_day": None,
        "rows": 0,
        "train_seconds": 0,
        "samples_per_s": None,
        "arms": {},
    }


def ranked(day: str, arm: str = "trained", targets: int = 100, **changes: Any) -> dict[str, Any]:
    return record(day, arm, targets=targets, **dict.fromkeys(RANKING_METRICS, 0.25), **changes)


def test_epochs_that_go_on_have_a_best_one_and_no_mean():
    epochs = [ranked(f"epoch-00{number}", trained_rows=7) | {"ndcg@10": 0.1 * number} for number in range(3)]
    summary = summarize([*epochs, ranked("epoch-003", trained_rows=0) | {"ndcg@10": 0.05}])
    assert summary["epochs"] == 3
    assert "days" not in summary
    means = summary["arms"]["trained"]
    assert (means["day"], means["ndcg@10"]) == ("epoch-002", 0.2)
    assert "test" not in means


def test_arms_of_a_stream_of_sequences_are_compared_over_the_days_that_both_have():
    half = {"macs": 4, "swapped": True, "churn": 0.25}
    arms = arms_of(
        ranked("1") | {"ndcg@10": 0.5, "macs": 8},
        ranked("2") | {"ndcg@10": 0.4, "macs": 8},
        ranked("3", targets=300) | {"ndcg@10": 0.2, "macs": 8},
        ranked("2", "half") | {"ndcg@10": 0.3, **half, "swapped": False},
        ranked("3", "half", targets=300) | {"ndcg@10": 0.22, **half},
    )
    # (0.3 + 3 * 0.22) / (0.4 + 3 * 0.2)
    assert arms["half"]["ndcg_gap_percent"] == pytest.approx(-4.0)
    assert arms["trained"]["ndcg_gap_percent"] == pytest.approx(0.0)
    assert [arms["half"][key] for key in ("macs", "macs_share", "num_swaps", "churn")] == [4, 0.5, 1, 0.25]


def test_arms_of_epochs_have_no_gap():
    arms = arms_of(ranked("epoch-000"), ranked("test"), ranked("test", "best"))
    assert "ndcg_gap_percent" not in arms["trained"]
    assert "ndcg_gap_percent" not in arms["best"]
