import math
import sys
from pathlib import Path
from typing import Any

import pytest

from raysparse.config import load_tree
from raysparse.errors import ConfigError
from raysparse.job.tune import Choices, IntegerRange, LogUniformRange, UniformRange
from raysparse.launch.tune_values import Drawn, as_overrides, build_proposer, check_values, draw, readable, train_job
from tests.launch.tune_jobs import RATE, choice, tune_job

SPACE: dict[str, Any] = {
    RATE: {"kind": "log_uniform", "low": 1e-4, "high": 1.0},
    "optimizer.dense.weight_decay": {"kind": "uniform", "low": 0.0, "high": 0.5},
    "data.batch_size": {"kind": "integer", "low": 3, "high": 5},
    "model.top": choice([8], [16, 8]),
}
MODELS = choice({"kind": "dlrm", "embedding_dim": 4}, {"kind": "deepfm", "embedding_dim": 8, "deep": [4]})


def test_draws_follow_from_seed_and_number_alone(tmp_path: Path):
    few = build_proposer(tune_job(tmp_path, SPACE, num_trials=5))
    many = build_proposer(tune_job(tmp_path, SPACE, num_trials=400))
    other = build_proposer(tune_job(tmp_path, SPACE, num_trials=5, seed=2))
    assert isinstance(few, Drawn)
    assert isinstance(many, Drawn)
    assert [few.propose(number, []) for number in range(5)] == many.all[:5]
    assert other.propose(0, []) != few.propose(0, [])
    rates = [values[RATE] for values in many.all]
    assert all(1e-4 <= rate <= 1 for rate in rates)
    # Each of the four orders of magnitude has its share.
    assert all(70 <= sum(10.0**low <= rate < 10.0 ** (low + 1) for rate in rates) <= 130 for low in range(-4, 0))
    assert {values["data.batch_size"] for values in many.all} == {3, 4, 5}
    assert 150 <= sum(values["model.top"] == [8] for values in many.all) <= 250
    decays = [values["optimizer.dense.weight_decay"] for values in many.all]
    assert 0.22 < sum(decays) / 400 < 0.28


def test_what_is_drawn_can_be_read_and_pasted():
    log, plain = (
        LogUniformRange(kind="log_uniform", low=1e-5, high=1.23456),
        UniformRange(kind="uniform", low=5, high=6),
    )
    assert readable(log, 0.00123456) == 0.001235
    assert readable(log, 1.2345) == 1.23456 or readable(log, 1.2345) == 1.234
    assert readable(log, 1.0000001e-5) == 1e-5
    assert readable(plain, 5.123456) == 5.123
    assert readable(UniformRange(kind="uniform", low=1e6, high=1e6 + 1), 1e6 + 0.123456) == 1e6 + 0.123
    low = draw({"x": IntegerRange(kind="integer", low=-2, high=-1)}, 1, 1)
    assert low["x"] in (-2, -1)
    tree = {"a.b": 1e-5, "c": [1, 2], "d": None, "e": "on", "f": {"kind": "x", "g": 0.1}}
    assert as_overrides(tree) == ["a.b=1e-05", "c=[1, 2]", "d=null", 'e="on"', 'f={"kind": "x", "g": 0.1}']


def test_overrides_read_back_as_the_values(tmp_path: Path):
    values = {
        "rate": 1e-05,
        "large": 1e22,
        "text": "Straße: 5 # \U0001f600",
        "off": "no",
        "none": None,
        "tree": {"a": [1.5, True]},
    }
    (tmp_path / "empty.yaml").write_text("{}")
    assert load_tree(tmp_path / "empty.yaml", tuple(as_overrides(values))) == values


def test_a_grid_has_all_combinations_once(tmp_path: Path):
    space = {RATE: choice(0.1, 0.2), "seed": choice(1, 2, 3)}
    proposer = build_proposer(tune_job(tmp_path, space, searcher={"kind": "grid"}, num_trials=2))
    assert proposer.num_trials == 6
    assert [tuple(proposer.propose(number, []).values()) for number in range(6)] == [
        (0.1, 1),
        (0.1, 2),
        (0.1, 3),
        (0.2, 1),
        (0.2, 2),
        (0.2, 3),
    ]
    with pytest.raises(ConfigError, match=f'space.{RATE}.kind: found "uniform"; allowed: choice, since a grid'):
        tune_job(tmp_path, {RATE: {"kind": "uniform", "low": 0, "high": 1}}, searcher={"kind": "grid"})


def test_another_model_takes_the_place_of_the_whole_model(tmp_path: Path):
    space = {"model.kind": choice("deepfm"), "model.deep": choice([4])}
    job = train_job(tune_job(tmp_path, space), 7, "there", {"model.kind": "deepfm", "model.deep": [4]}, "x")
    assert job.model.model_dump() == {"kind": "deepfm", "embedding_dim": 16, "deep": (4,)}
    assert (job.name, job.run_folder) == ("test-007", "there")


def test_a_value_that_is_drawn_reaches_the_job_whatever_kind_is_drawn_after_it(tmp_path: Path):
    rates = {"optimizer.dense.learning_rate": 0.25, "optimizer.sparse.learning_rate": 0.5}
    kinds = {"optimizer.dense.kind": "adagrad", "optimizer.sparse.kind": "sgd"}
    values = {**rates, **kinds}
    base = {"optimizer": {"sparse": {"kind": "adam", "learning_rate": 0.1}, "dense": {"clip_norm": 2.0}}}
    job = train_job(
        tune_job(tmp_path, {key: choice(value) for key, value in values.items()}, job=base), 0, "x", values, "x"
    )
    assert job.optimizer.dense.model_dump(exclude={"weight_decay", "eps"}) == {
        "kind": "adagrad",
        "learning_rate": 0.25,
        "clip_norm": 2.0,
    }
    assert job.optimizer.sparse.model_dump() == {"kind": "sgd", "learning_rate": 0.5, "clip_value": None}


@pytest.mark.parametrize("searcher", ["random", "grid"])
def test_a_refused_value_is_named_with_its_trials_and_what_is_allowed(tmp_path: Path, searcher: str):
    space = {RATE: choice(0.1, -1.0), "modle.top": choice([8])}
    job = tune_job(tmp_path, space, searcher={"kind": searcher}, num_trials=6)
    with pytest.raises(ConfigError) as caught:
        check_values(job, build_proposer(job))
    first, *faults = str(caught.value).splitlines()
    assert first == "job and space make train jobs that cannot run:"
    unknown = next(fault for fault in faults if "modle" in fault)
    assert "modle: unknown key; allowed here: " in unknown
    assert "did you mean 'model'? (trial 0, trial 1" in unknown
    refused = next(fault for fault in faults if RATE in fault)
    assert f"{RATE}: found -1.0; allowed: greater than 0 (trial " in refused
    assert len(faults) == 2


def test_both_ends_of_a_range_are_checked(tmp_path: Path):
    space = {"optimizer.dense.weight_decay": {"kind": "uniform", "low": -1e-9, "high": 1.0}}
    job = tune_job(tmp_path, space, num_trials=3)
    with pytest.raises(
        ConfigError, match=r"greater than or equal to 0 \(space.optimizer.dense.weight_decay at -1e-09\)"
    ):
        check_values(job, build_proposer(job))
    below = tune_job(tmp_path, {"seed.depth": choice(1)}, job={"seed": 3}, num_trials=1)
    with pytest.raises(ConfigError, match=r"goes below 'seed', which holds the value 3 \(trial 0\)"):
        check_values(below, build_proposer(below))


def test_ranges_and_keys_that_make_no_sense_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"space.{RATE}.low: found 1.0; allowed: less than high, which is 1.0"):
        tune_job(tmp_path, {RATE: {"kind": "uniform", "low": 1.0, "high": 1.0}})
    with pytest.raises(
        ConfigError, match=r'job.run_folder: found "x"; allowed: nothing, since each trial has a run_folder'
    ):
        tune_job(tmp_path, {RATE: choice(0.1)}, job={"run_folder": "x"})
    with pytest.raises(ConfigError, match=r'space.name: found "choice"; allowed: nothing, since each trial has a name'):
        tune_job(tmp_path, {"name": choice("a", "b")})


def test_a_missing_optuna_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    job = tune_job(tmp_path, {RATE: choice(0.1)}, searcher={"kind": "optuna"})
    with pytest.raises(ConfigError, match=r"found 'optuna', whose package .* `pip install 'raysparse\[optuna\]'`"):
        build_proposer(job)


def test_optuna_proposes_what_is_better_than_chance_and_the_same_again(tmp_path: Path):
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    space = {RATE: SPACE[RATE], "data.batch_size": SPACE["data.batch_size"], "model": MODELS}
    early, late = [], []
    for seed in range(6):
        job = tune_job(tmp_path, space, searcher={"kind": "optuna"}, num_trials=30, seed=seed)
        proposer = build_proposer(job)
        check_values(job, proposer)
        scores: list[tuple[dict[str, Any], float]] = []
        for number in range(30):
            values = proposer.propose(number, scores)
            assert 3 <= values["data.batch_size"] <= 5
            deep = values["model"]["kind"] == "deepfm"
            scores.append((values, abs(math.log10(values[RATE]) + 2) + deep))
        assert build_proposer(job).propose(17, scores[:17]) == scores[17][0]
        assert len({values[RATE] for values, _ in scores}) > 25
        early += [score for _, score in scores[:10]]
        late += [score for _, score in scores[15:]]
    assert sum(late) / len(late) < 0.8 * sum(early) / len(early)
    # Each choice is checked before anything starts, whatever is proposed later.
    odd = tune_job(tmp_path, {RATE: choice(0.1, 0.2, -3.0)}, searcher={"kind": "optuna"})
    with pytest.raises(ConfigError, match=rf"allowed: greater than 0 \(space.{RATE} at -3.0\)"):
        check_values(odd, build_proposer(odd))


def test_choices_are_drawn_as_they_are_written():
    values = ({"a": 1}, [1, 2], None, "x")
    drawn = [draw({"x": Choices(kind="choice", values=values)}, 0, number)["x"] for number in range(100)]
    assert all(value in values for value in drawn)
    assert [value for value in values if value not in drawn] == []
