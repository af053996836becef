import pytest

from raysparse.config import override, parse_yaml
from raysparse.errors import ConfigError
from raysparse.job import check_train_job, dump_job, refuse_changes

JOB = {"kind": "train", "name": "x", "run_folder": "runs/x", "data": {"path": "data/x"}}


def faults(**changes: object) -> str:
    with pytest.raises(ConfigError) as error:
        check_train_job({**JOB, **changes}, "x.yaml")
    return str(error.value)


def test_all_faults_are_listed_at_once_with_key_found_and_allowed():
    text = faults(
        seeed=1,
        seed=-1,
        data={"path": "data/x", "batch_size": "many"},
        model={"kind": "dlrm", "top": [8, "wide"], "botom": [4]},
        scaling={"num_workers": 2.5},
    )
    assert text.startswith("x.yaml has 6 faults:")
    assert "  seeed: unknown key; allowed here: callbacks, checkpoint" in text
    assert "did you mean 'seed'?" in text
    assert "  seed: found -1; allowed: greater than or equal to 0" in text
    assert '  data.batch_size: found "many"; allowed: a valid integer' in text
    assert '  model.top.1: found "wide"; allowed: a valid integer' in text
    assert "  model.botom: unknown key; allowed here: bottom, embedding_dim, kind, top; did you mean 'bottom'?" in text
    assert "  scaling.num_workers: found 2.5; allowed: a valid integer" in text


def test_an_unknown_kind_names_the_known_ones():
    assert "model.kind: found 'dlm'; allowed: 'dlrm', 'deepfm', 'dcn'" in faults(model={"kind": "dlm"})
    assert "kind: found 'trian'; allowed: train" in faults(kind="trian")
    assert "model.kind: missing" in faults(model={"top": [8]})


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="run_folder: missing; it has to be given"):
        check_train_job({"kind": "train", "name": "x", "data": {"path": "y"}}, "x.yaml")


def test_arms_have_names_of_their_own():
    assert "'trained'" in faults(callbacks=[{"kind": "frozen_arm", "name": "trained"}])


def test_overrides_are_read_as_yaml_and_reach_lists():
    tree = {"model": {"kind": "dlrm", "top": [8, 4]}, "callbacks": [{"after_days": 30}]}
    changed = override(tree, ("model.top.1=5", "callbacks.0.after_days=3", "optimizer.dense.learning_rate=1e-3"))
    assert changed["model"]["top"] == [8, 5]
    assert changed["callbacks"][0]["after_days"] == 3
    assert changed["optimizer"]["dense"]["learning_rate"] == 1e-3
    assert tree["model"]["top"] == [8, 4]


def test_a_changed_kind_drops_the_keys_of_the_other_kind():
    tree = {"kind": "train", "model": {"kind": "dlrm", "top": [8]}, "name": "x"}
    assert override(tree, ("model.kind=dcn",)) == {"kind": "train", "model": {"kind": "dcn"}, "name": "x"}
    assert override(tree, ("model.kind=dlrm",)) == tree


@pytest.mark.parametrize(
    ("text", "reason"),
    [("seed", "not of the form key=value"), ("model.top.7=1", "list of 1 entries"), ("name.x=1", "holds the value")],
)
def test_an_override_that_fits_nothing_is_refused(text: str, reason: str):
    with pytest.raises(ConfigError, match=reason):
        override({"model": {"top": [8]}, "name": "x"}, (text,))


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("2013-01-01", "2013-01-01"), ("1_000", 1000), ("0.5", 0.5), ("abc", "abc")]
)
def test_numbers_are_numbers_and_dates_are_text(text: str, value: object):
    assert parse_yaml(text, "test") == value


def test_a_resolved_job_reads_back_as_itself():
    job = check_train_job({**JOB, "model": {"kind": "dcn", "rank": None}}, "x.yaml")
    assert check_train_job(parse_yaml(dump_job(job), "job.yaml"), "job.yaml") == job


def test_a_resumed_run_may_change_its_workers_but_not_its_numbers():
    job = check_train_job(JOB, "x.yaml")
    refuse_changes(job, check_train_job({**JOB, "scaling": {"num_workers": 4}, "run_folder": "elsewhere"}, "x.yaml"))
    with pytest.raises(ConfigError, match=r"seed: 1 in the run, 2 in the job[\s\S]*--fresh"):
        refuse_changes(job, check_train_job({**JOB, "seed": 2}, "x.yaml"))


def test_the_days_may_not_change_where_a_decay_ends_with_them():
    def with_days(decay_steps: int | None, last_day: str):
        schedule = {"kind": "cosine", "decay_steps": decay_steps}
        tree = {**JOB, "optimizer": {"schedule": schedule}, "data": {**JOB["data"], "last_day": last_day}}
        return check_train_job(tree, "x.yaml")

    refuse_changes(with_days(100, "a"), with_days(100, "b"))
    with pytest.raises(ConfigError, match="data.last_day: 'a' in the run, 'b' in the job"):
        refuse_changes(with_days(None, "a"), with_days(None, "b"))
