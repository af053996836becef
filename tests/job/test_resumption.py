from typing import Any

import pytest

from raysparse.errors import ConfigError
from raysparse.job import TrainJob, check_train_job, refuse_changes

JOB = {"kind": "train", "name": "x", "run_folder": "runs/x", "data": {"path": "data/x"}}


def test_a_resumed_run_may_change_its_workers_but_not_its_numbers():
    job = check_train_job(JOB, "x.yaml")
    refuse_changes(job, check_train_job({**JOB, "scaling": {"num_workers": 4}, "run_folder": "elsewhere"}, "x.yaml"))
    with pytest.raises(ConfigError, match=r"seed: 1 in the run, 2 in the job[\s\S]*--fresh"):
        refuse_changes(job, check_train_job({**JOB, "seed": 2}, "x.yaml"))
    coarse = {**JOB, "scaling": {"matmul_precision": "medium"}}
    with pytest.raises(ConfigError, match=r'scaling.matmul_precision: "highest" in the run, "medium" in the job'):
        refuse_changes(job, check_train_job(coarse, "x.yaml"))


def test_the_days_may_not_change_where_a_decay_ends_with_them():
    def with_days(decay_steps: int | None, last_day: str):
        schedule = {"kind": "cosine", "decay_steps": decay_steps}
        tree = {**JOB, "optimizer": {"schedule": schedule}, "data": {**JOB["data"], "last_day": last_day}}
        return check_train_job(tree, "x.yaml")

    refuse_changes(with_days(100, "a"), with_days(100, "b"))
    with pytest.raises(ConfigError, match='data.last_day: "a" in the run, "b" in the job'):
        refuse_changes(with_days(None, "a"), with_days(None, "b"))


def in_a_search(run_folder: str, cache: str, source: str) -> TrainJob:
    supernet: dict[str, Any] = {
        "model": {"kind": "sasrec_supernet"},
        "data": {"path": "data/x", "epochs": 2},
        "callbacks": [{"kind": "sandwich"}, {"kind": "sequence_cache", "folder": cache}],
        "start_from": {"run_folder": source},
    }
    return check_train_job({**JOB, **supernet, "run_folder": run_folder}, "x.yaml")


def test_the_folders_of_a_search_move_with_it():
    job = in_a_search("/a/search/supernet", "/a/search/cache", "/a/search/first")
    refuse_changes(job, in_a_search("/b/moved/supernet", "/b/moved/cache", "/b/moved/first"))
    refuse_changes(job, in_a_search("/b/moved/supernet", "/a/search/cache", "/a/search/first"))
    with pytest.raises(ConfigError, match="callbacks.1.folder: .*/a/search/cache"):
        refuse_changes(job, in_a_search("/b/moved/supernet", "/b/other", "/b/moved/first"))
    with pytest.raises(ConfigError, match='start_from.run_folder: "/a/search/first" in the run, "/b/other" in the job'):
        refuse_changes(job, in_a_search("/b/moved/supernet", "/b/moved/cache", "/b/other"))
