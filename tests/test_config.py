import json
from pathlib import Path

import pytest

from raysparse.config import differences, override, parse_yaml
from raysparse.errors import ConfigError
from raysparse.job import TrainJob, TuneJob, check_train_job, dump_job, load_train_job

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
    text = faults(callbacks=[{"kind": "frozen_arm", "name": "trained"}, {"kind": "frozen_arm"}, {"kind": "frozen_arm"}])
    assert text.splitlines() == [
        "x.yaml has 2 faults:",
        '  callbacks.0.name: found "trained"; allowed: a name of its own, as each arm has; trained are taken',
        '  callbacks.2.name: found "frozen"; allowed: a name of its own, as each arm has; frozen, trained are taken',
    ]


def test_faults_between_keys_do_not_print_what_is_around_them():
    label = {"column": "y", "positive": ["1"]}
    prepare = {"source": "table", "input": "x", "label": label, "day": {"column": "d"}, "ids": [{"column": "u"}]}
    text = faults(data={"path": "data/x", "prepare": prepare})
    assert "  data.prepare.label: allowed: `positive` and `negative` given together" in text
    assert '"column"' not in text
    text = faults(ranking={"filter_seen": False, "max_rows": None})
    assert text.splitlines()[1:] == [
        "  ranking.filter_seen: found false; allowed: only with model.kind sasrec, found dlrm"
    ]


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


def test_neighbours_stay_where_one_class_is_for_both_kinds():
    dense = {"kind": "adam", "learning_rate": 0.5, "clip_norm": 1.0}
    schedule = {"kind": "constant", "warm_up_steps": 7}
    tree = {"optimizer": {"dense": dense, "schedule": schedule}, "model": {"kind": "dlrm", "top": [8]}}
    kinds = ("optimizer.dense.kind=adagrad", "optimizer.schedule.kind=linear", "model.kind=dcn")
    expected = {
        "optimizer": {"dense": {**dense, "kind": "adagrad"}, "schedule": {**schedule, "kind": "linear"}},
        "model": {"kind": "dcn"},
    }
    assert override(tree, kinds, (TrainJob,)) == expected
    of_tune = override({"kind": "tune", "job": tree}, tuple(f"job.{kind}" for kind in kinds), (TuneJob, TrainJob))
    assert of_tune == {"kind": "tune", "job": expected}


def test_the_neighbours_of_a_named_table_stay_as_well():
    tree = {"sharding": {"tables": {"a": {"kind": "row_wise", "column_width": 4}}}}
    changed = override(tree, ("sharding.tables.a.kind=column_wise",), (TrainJob,))
    assert changed["sharding"]["tables"]["a"] == {"kind": "column_wise", "column_width": 4}


def test_a_changed_kind_keeps_what_an_override_before_it_gave(tmp_path: Path):
    tree = {"optimizer": {"sparse": {"kind": "adam", "learning_rate": 0.5, "beta1": 0.8}}}
    changed = override(tree, ("optimizer.sparse.learning_rate=0.1", "optimizer.sparse.kind=sgd"), (TrainJob,))
    assert changed == {"optimizer": {"sparse": {"kind": "sgd", "learning_rate": 0.1}}}
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({**JOB, **tree}))
    with pytest.raises(ConfigError, match=r"optimizer.sparse.beta1: unknown key; allowed here: clip_value, kind, "):
        load_train_job(path, ("optimizer.sparse.beta1=0.9", "optimizer.sparse.kind=sgd"))
    dense = load_train_job(path, ("optimizer.dense.clip_norm=2.0", "optimizer.dense.kind=adagrad")).optimizer.dense
    assert (dense.kind, dense.clip_norm) == ("adagrad", 2.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("seed", "not of the form key=value"), ("model.top.7=1", "list of 1 entries"), ("name.x=1", "holds the value")],
)
def test_an_override_that_fits_nothing_is_refused(text: str, reason: str):
    with pytest.raises(ConfigError, match=reason):
        override({"model": {"top": [8]}, "name": "x"}, (text,))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1_000", 1000),
        ("-10", -10),
        ("0", 0),
        ("0.5", 0.5),
        ("0x1F", 31),
        ("2013-01-01", "2013-01-01"),
        ("000", "000"),
        ("008", "008"),
        ("010", "010"),
        ("10:30", "10:30"),
        ("abc", "abc"),
    ],
)
def test_numbers_are_numbers_and_dates_and_numbered_days_are_text(text: str, value: object):
    found = parse_yaml(text, "test")
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("day", ["003", "008", "010"])
def test_a_numbered_day_is_the_same_plainly_by_override_and_read_back(tmp_path: Path, day: str):
    path = tmp_path / "job.yaml"
    path.write_text(f"kind: train\nname: x\nrun_folder: runs/x\ndata: {{path: data/x, first_day: {day}}}\n")
    job = load_train_job(path, (f"data.last_day={day}",))
    assert (job.data.first_day, job.data.last_day) == (day, day)
    assert check_train_job(parse_yaml(dump_job(job), "job.yaml"), "job.yaml") == job


def test_a_key_that_is_given_twice_is_named_with_its_lines(tmp_path: Path):
    path = tmp_path / "job.yaml"
    path.write_text("kind: train\nname: x\nmodel:\n  kind: dlrm\n  top: [8]\n  top: [4]\n")
    text = rf"{path} is not valid YAML: the key 'top' is given twice, first in line 5; remove one[\s\S]*line 6"
    with pytest.raises(ConfigError, match=text):
        load_train_job(path)
    merged = "base: &base {top: [8], kind: dlrm}\nmodel:\n  <<: *base\n  top: [4]\n"
    assert parse_yaml(merged, "test")["model"] == {"top": [4], "kind": "dlrm"}


def test_a_resolved_job_reads_back_as_itself():
    job = check_train_job({**JOB, "model": {"kind": "dcn", "rank": None}}, "x.yaml")
    assert check_train_job(parse_yaml(dump_job(job), "job.yaml"), "job.yaml") == job


def test_a_fault_between_keys_is_that_of_the_part_and_not_of_its_kind():
    assert "  model: allowed: num_heads of one value, or" in faults(model={"kind": "sasrec", "num_heads": [2, 2, 2]})


def test_differences_have_dotted_keys_in_lists_too():
    found = {"a": 1, "list": [{"x": 1}, {"x": 2}], "longer": [1], "same": [3]}
    wanted = {"b": None, "list": [{"x": 1}, {"x": 3}], "longer": [1, 2], "same": [3]}
    assert differences(found, wanted) == [
        ("a", "1", "nothing"),
        ("b", "nothing", "null"),
        ("list.1.x", "2", "3"),
        ("longer", "[1]", "[1, 2]"),
    ]
