"""The dense-to-sparse loop on real days: forks, swaps, sizes, resuming, and any number of workers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from raysparse.callbacks.small_dense import SmallDenseConfig
from raysparse.callbacks.sparsity import EvidenceConfig, SparsityConfig, leads
from raysparse.config import Tree
from raysparse.data.schema import DenseFeature, IdFeature, Schema, sequence_schema
from raysparse.errors import ConfigError
from raysparse.job import check_train_job
from raysparse.models.dlrm import DLRMConfig
from raysparse.train.arm import TRAINED
from tests.data.datasets import PLAIN, write_dataset
from tests.gloo import run_ranks
from tests.train.ranks import history, job_of, run_job, run_until, run_whole

pytestmark = pytest.mark.multi

MODEL = {"kind": "dlrm", "embedding_dim": 4, "bottom": [16], "top": [32, 16]}
WIDTHS = {"least_groups": 2, "least_share": 0.0, "multiple_of": 1}


def sparse(name: str, refresh: Tree, **changes: Any) -> Tree:
    return {
        "kind": "sparsity",
        "name": name,
        "budget": 0.4,
        "first_day": 1,
        "refresh": refresh,
        "widths": WIDTHS,
        **changes,
    }


ALL = {
    "model": MODEL,
    "callbacks": [
        {"kind": "small_dense", "budget": 0.4, "widths": WIDTHS},
        sparse("static", {"kind": "never"}),
        sparse("copied", {"kind": "every", "days": 3}, tables="copied"),
        sparse("frozen_tables", {"kind": "never"}, tables="frozen"),
        sparse("every", {"kind": "every", "days": 2}, teacher=0.5),
        sparse("evidence", {"kind": "evidence", "standard_errors": 0.0, "max_age_days": 2, "at_once": None}),
        sparse("at_once", {"kind": "evidence", "max_age_days": 3, "at_once": 0.0}, window_days=2),
        sparse("gates", {"kind": "never"}, pruner={"kind": "gates"}, window_days=2),
        sparse("hard_concrete", {"kind": "never"}, pruner={"kind": "hard_concrete"}, window_days=2),
        sparse("in_place", {"kind": "in_place", "every_steps": 3, "fraction": 0.2}),
        {"kind": "mask_age", "budget": 0.4, "first_day": 1, "every_days": 3, "num_ages": 1, "widths": WIDTHS},
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "set"
    write_dataset(path, PLAIN, [[300]] * 7)
    return str(path)


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_ranks(2, run_whole, data, str(folder), ALL)
    return folder


def lines_of(records: list[dict[str, Any]], arm: str) -> dict[str, dict[str, Any]]:
    return {record["day"]: record for record in records if record["arm"] == arm}


def test_a_child_is_served_the_day_after_its_window_and_costs_its_budget(whole: Path):
    records = history(whole)
    dense = lines_of(records, TRAINED)["000"]["macs"]
    first_days = {"static": "002", "every": "002", "evidence": "002", "in_place": "002", "gates": "003"}
    for arm, first in {**first_days, "hard_concrete": "003"}.items():
        lines = lines_of(records, arm)
        assert min(lines) == first
        assert all(0.35 * dense < line["macs"] <= 0.4 * dense for line in lines.values()), arm
        assert lines[first]["mask_age_days"] == 0
        assert not lines[first]["swapped"]
    assert min(lines_of(records, "small_dense")) == "000"


def test_a_static_mask_stays_and_a_periodic_one_is_renewed(whole: Path):
    records = history(whole)
    static = lines_of(records, "static")
    assert [line["mask_age_days"] for line in static.values()] == [0, 1, 2, 3, 4]
    assert len({str(line["widths"]) for line in static.values()}) == 1
    every = lines_of(records, "every")
    assert [line["mask_age_days"] for line in every.values()] == [0, 1, 0, 1, 0]
    assert [line.get("swapped", False) for line in every.values()] == [False, False, True, False, True]
    assert all(0.0 <= line["churn"] < 1.0 for line in every.values() if line.get("swapped"))


def test_evidence_swaps_exactly_where_the_candidate_was_better(whole: Path):
    records = history(whole)
    served, shadow = lines_of(records, "evidence"), lines_of(records, "evidence.candidate")
    days = sorted(served)
    compared = 0
    for day, following in zip(days, days[1:], strict=False):
        if day in shadow and "widths" in shadow[day]:
            compared += 1
            better = shadow[day]["log_loss"] < served[day]["log_loss"]
            assert served[following].get("swapped", False) == better
    assert compared >= 2


def test_a_candidate_that_leads_in_its_window_is_served_the_next_day(whole: Path):
    served = lines_of(history(whole), "at_once")
    at_once = [line for line in served.values() if line.get("swapped") and line["mask_age_days"] == 0]
    later = [line for line in served.values() if line.get("swapped") and line["mask_age_days"] > 0]
    assert at_once
    assert all(line["mask_age_days"] == 1 for line in later)


def test_a_lead_is_one_by_standard_errors_of_the_steps():
    differences = torch.tensor([-0.3, -0.1, -0.3, 0.1], dtype=torch.float64)
    settled = torch.stack([torch.tensor(4.0).double(), differences.sum(), differences.square().sum()])
    error = differences.std() / 2  # of the mean of four: 0.096, the mean is 0.15 below
    assert 0.15 / error == pytest.approx(1.567, abs=0.001)
    for ahead, expected in ((0.0, True), (1.5, True), (1.6, False), (None, False)):
        assert leads(settled, EvidenceConfig(at_once=ahead)) == expected
    assert not leads(settled, EvidenceConfig(at_once=0.0, judged_days=2))
    behind = settled * torch.tensor([1.0, -1.0, 1.0])
    for ahead, expected in ((0.0, False), (-1.5, False), (-1.6, True)):
        assert leads(behind, EvidenceConfig(at_once=ahead)) == expected


def test_masks_of_an_age_recover_a_day_and_are_gone(whole: Path):
    records = history(whole)
    for name in ("age_00", "random"):
        assert list(lines_of(records, f"mask_age.{name}")) == ["003", "006"]


def test_one_worker_gives_the_numbers_of_two(data: str, whole: Path, tmp_path: Path, one_rank: None):
    run_job(job_of(data, str(tmp_path / "one"), **ALL))
    for one, two in zip(history(tmp_path / "one"), history(whole), strict=True):
        assert (one["day"], one["arm"], one["macs"]) == (two["day"], two["arm"], two["macs"])
        assert one["ne"] == pytest.approx(two["ne"], rel=1e-3)


@pytest.mark.parametrize("steps", [6, 8, 13, 23])
def test_a_run_killed_within_a_day_goes_on_exactly(data: str, whole: Path, tmp_path: Path, steps: int):
    """While groups are left out, while weights recover, after the first swap, and within a second window."""
    folder = tmp_path / "killed"
    run_ranks(2, run_until, data, str(folder), steps, steps + 3, ALL)
    run_ranks(2, run_whole, data, str(folder), ALL)
    assert history(folder) == history(whole)


def test_budgets_and_periods_that_make_no_sense_are_refused():
    def faults(refresh: dict[str, Any] | None = None, **changes: Any) -> str:
        callback = sparse("bad", refresh or {"kind": "every", "days": 1}, **changes)
        with pytest.raises(ConfigError) as error:
            check_train_job({**job_of("data", "run").model_dump(mode="json"), "callbacks": [callback]}, "job")
        return str(error.value)

    assert "callbacks.0.budget" in faults(budget=1.5)
    assert "callbacks.0.budget" in faults(budget=0.0)
    assert "window_days" in faults(window_days=2)
    evidence = {"kind": "evidence", "judged_days": 3, "max_age_days": 8}
    least = "max_age_days of at least 9, judged_days plus the days of the window but one"
    assert least in faults(window_days=7, refresh=evidence)
    assert "by_hand" in faults(pruner={"kind": "greedy", "shares": {"top.2": 2.0}})
    assert "above 0" in faults(pruner={"kind": "greedy", "allocation": "by_hand", "shares": {"top.2": 0.0}})


def test_a_budget_below_the_floors_is_refused_before_training_with_what_is_possible():
    from raysparse.callbacks.budgets import check_budgets
    from raysparse.models import build_model

    job = job_of(
        "data",
        "run",
        model=MODEL,
        callbacks=[sparse("bad", {"kind": "never"}, widths={"least_groups": 30, "multiple_of": 1})],
    )
    with pytest.raises(ConfigError, match=r"callbacks\.0\.budget: found 0\.4.*at least 0\.9\d+ is possible"):
        check_budgets(job.callbacks, build_model(job.model, PLAIN, 1), PLAIN)


def test_a_small_arm_that_keeps_all_inputs_may_need_more_than_a_child():
    from raysparse.callbacks.budgets import check_budgets
    from raysparse.models import build_model

    schema = Schema(
        dense=tuple(DenseFeature(name=f"I{number}") for number in range(13)),
        ids=tuple(IdFeature(name=f"C{number}", rows=10) for number in range(26)),
    )
    model = build_model(DLRMConfig(), schema, 1)
    check_budgets([SmallDenseConfig(budget=0.15)], model, schema)
    with pytest.raises(ConfigError, match=r"callbacks.0.budget: found 0.1, .*small_dense takes .*0.12\d+ is possible"):
        check_budgets([SmallDenseConfig(budget=0.1)], model, schema)


def test_a_run_that_is_given_a_day_at_a_time_is_pruned_too(data: str, tmp_path: Path, one_rank: None):
    changes = {"model": MODEL, "callbacks": [sparse("every", {"kind": "every", "days": 2})]}
    for last in range(1, 6):
        days = {"path": data, "batch_size": 64, "last_day": f"{last:03d}"}
        run_job(job_of(data, str(tmp_path / "daily"), data=days, **changes))
    run_job(job_of(data, str(tmp_path / "whole"), data={"path": data, "batch_size": 64, "last_day": "005"}, **changes))
    lines = history(tmp_path / "daily")
    assert [line["day"] for line in lines if line["arm"] == "every"] == [f"{day:03d}" for day in range(2, 6)]
    assert lines == history(tmp_path / "whole")


def test_a_sequence_models_budget_below_the_floors_is_refused_before_training():
    from raysparse.callbacks.budgets import check_budgets
    from raysparse.models import build_model
    from raysparse.models.sasrec.config import SASRecConfig

    model = build_model(SASRecConfig(embedding_dim=16, num_heads=4), sequence_schema(30), 1)
    floors = {"least_share": 1.0, "multiple_of": 1}
    callbacks = [SparsityConfig.model_validate(sparse("bad", {"kind": "never"}, widths=floors))]
    with pytest.raises(ConfigError, match=r"callbacks\.0\.budget: found 0\.4.*possible"):
        check_budgets(callbacks, model, sequence_schema(30))


def test_shares_of_a_layer_that_is_not_there_are_refused_before_training():
    from raysparse.callbacks.budgets import check_budgets
    from raysparse.models import build_model

    def check(place: str) -> None:
        pruner = {"kind": "greedy", "allocation": "by_hand", "shares": {place: 2.0}}
        job = job_of("data", "run", model=MODEL, callbacks=[sparse("bad", {"kind": "never"}, pruner=pruner)])
        check_budgets(job.callbacks, build_model(job.model, PLAIN, 1), PLAIN)

    check("top.0.2")
    with pytest.raises(ConfigError, match=r"callbacks\.0\.pruner\.shares: found top\.9.*top\.0\.2 \(32 groups\)"):
        check("top.9")
