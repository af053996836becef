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
