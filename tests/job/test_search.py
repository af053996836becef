from typing import Any

import pytest

from raysparse.errors import ConfigError
from raysparse.job import SearchJob, check_job, require_kind

CLICKS: dict[str, Any] = {"data": {"path": "data"}, "space": {"kind": "ctr"}}
SEQUENCES: dict[str, Any] = {"data": {"path": "data", "epochs": 3}, "space": {"kind": "sasrec"}}


def job_of(tree: dict[str, Any]) -> SearchJob:
    return require_kind(SearchJob, check_job({"kind": "search", "name": "test", "run_folder": "run", **tree}, "x"), "x")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"finalists": {"learning_rates": [1, 2, 1.0]}},
            "finalists.learning_rates: .* allowed: each learning rate once",
        ),
        (
            {"baselines": [{"kind": "dcn"}, {"kind": "dlrm"}, {"kind": "dcn"}]},
            "baselines.2: .* allowed: each model once, and baselines.0 is the same",
        ),
    ],
)
def test_what_would_be_run_twice_is_refused(change: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault):
        job_of(CLICKS | change)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"split": {"test_days": 2}}, 'split: found {"validation_days": 1, "test_days": 2}'),
        ({"scoring": {"tuning_rows": 9}}, "scoring: found"),
        ({"supernet": {"sampling": {"warm_up_steps": 9}}}, "supernet.sampling: found"),
    ],
)
def test_what_a_search_for_sequences_would_not_read_is_refused(change: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault + ".* allowed: only with space.kind ctr, found sasrec; leave it out"):
        job_of(SEQUENCES | change)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ranking": {"max_rows": 9}}, "ranking: found"),
        ({"early_stop": {"patience": 9}}, 'early_stop: found .*"patience": 9}'),
        ({"supernet": {"sandwich": {"num_drawn": 9}}}, "supernet.sandwich: found"),
        ({"supernet": {"distillation": 0.5}}, "supernet.distillation: found 0.5;"),
        ({"supernet": {"epochs": 9}}, "supernet.epochs: found 9;"),
        ({"supernet": {"loss": {"kind": "full_softmax"}}}, "supernet.loss: found"),
    ],
)
def test_what_a_search_for_clicks_would_not_read_is_refused(change: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault + ".* allowed: only with space.kind sasrec, found ctr; leave it out"):
        job_of(CLICKS | change)


@pytest.mark.parametrize("tree", [CLICKS, SEQUENCES])
def test_a_resolved_job_names_the_defaults_of_what_it_does_not_read(tree: dict[str, Any]):
    job = job_of(tree)
    assert job_of(job.model_dump(mode="json")) == job


def test_gradients_do_not_search_what_they_would_ignore():
    searcher = {"kind": "differentiable", "constraint": {"kind": "dual", "budgets": [10_000]}}
    space = {"kind": "sasrec", "max_macs": 10_000, "lengths": [5, 10]}
    data = SEQUENCES["data"] | {"cut": "drawn"}
    with pytest.raises(ConfigError) as caught:
        job_of(SEQUENCES | {"searcher": searcher, "space": space, "data": data})
    assert 'data.cut: found "drawn"; allowed: last with searcher.kind differentiable' in str(caught.value)
    assert "space.max_macs: found 10000; allowed: null with searcher.kind differentiable" in str(caught.value)
    assert "space.lengths: found [5, 10]; allowed: one length with searcher.kind differentiable" in str(caught.value)
    assert job_of(SEQUENCES | {"space": space, "data": data}).space.max_macs == 10_000


def test_budgets_that_no_found_network_would_keep_to_are_refused_before_anything_starts():
    searcher = {"kind": "differentiable", "constraint": {"kind": "dual", "budgets": [9_000, 7_000]}}

    def finalists(*budgets: int) -> dict[str, Any]:
        return {"searcher": searcher, "finalists": {"rank_by": "budgets", "budgets": budgets}}

    with pytest.raises(ConfigError, match=r"finalists.budgets: found \[5000, 6000\]; allowed: one of 7,000 or more"):
        job_of(SEQUENCES | finalists(5_000, 6_000))
    assert job_of(SEQUENCES | finalists(5_000, 8_000)).finalists.budgets == (5_000, 8_000)


def test_the_best_epoch_of_a_search_is_that_by_what_it_judges():
    with pytest.raises(ConfigError, match=r'early_stop.metric: found "hr@10"; allowed: ndcg@10, by which'):
        job_of(SEQUENCES | {"early_stop": {"metric": "hr@10"}})


def test_a_finalist_for_sequences_learns_an_epoch_at_least():
    finalists = {"weights": "inherited", "inherited_days": 0, "optimizer": {"sparse": {"kind": "rowwise_adagrad"}}}
    with pytest.raises(ConfigError, match=r"finalists.inherited_days: found 0; allowed: 1 or more epochs"):
        job_of(SEQUENCES | {"finalists": finalists})
    assert job_of(CLICKS | {"finalists": finalists}).finalists.inherited_days == 0


def test_energy_is_not_measured_on_gpus():
    searcher = {"kind": "nsga2", "objectives": ["1-ndcg@10", "energy_uj"]}
    with pytest.raises(ConfigError, match="trials.gpus_per_actor: found 0.5; allowed: 0 with the objective energy_uj"):
        job_of(SEQUENCES | {"searcher": searcher, "trials": {"gpus_per_actor": 0.5}})
    assert job_of(SEQUENCES | {"searcher": searcher}).objectives == ("1-ndcg@10", "energy_uj")


@pytest.mark.parametrize(
    ("finalists", "fault"),
    [
        (
            {"optimizer": {"dense": {"kind": "adam", "learning_rate": 0.05}}},
            "finalists.optimizer.dense.learning_rate: found 0.05; allowed: left out, or one of finalists",
        ),
        ({"inherited_days": 7}, "finalists.inherited_days: found 7; allowed: left out with finalists.weights drawn"),
    ],
)
def test_a_key_of_finalists_that_would_do_nothing_is_refused(finalists: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault):
        job_of(CLICKS | {"finalists": finalists})
