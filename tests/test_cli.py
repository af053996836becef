import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from raysparse.cli import main
from raysparse.config import load_tree, parse_yaml
from raysparse.data.dataset import Dataset
from raysparse.data.sources import SOURCES
from raysparse.job import check_job, load_job
from tests.report.runs import record, write_run

JOBS = Path(__file__).resolve().parents[1] / "jobs"
FLIGHTS = JOBS / "flights.yaml"

MAPPING = """
label: {column: clicked}
day: {column: date}
dense: [{column: price, optional: true}]
ids: [{column: user}, {column: item, rows: 20}]
ordered: true
"""
CLICKS = """date,user,item,price,clicked
2024-05-01,u1,i1,1.5,1
2024-05-01,u2,i1,,0
2024-05-01,u3,i2,2.0,0
2024-05-01,u4,i2,2.0,maybe
2024-05-02,u1,i3,0.5,1
2024-05-02,u2,i3,,1
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def message(*arguments: str) -> str:
    """What a call that fails tells its user: one message, no traceback, nothing beside it."""
    result = call(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("Error: ") == 1
    return result.stderr.removeprefix("Error: ").rstrip("\n")


def test_help_is_there_without_torch_and_ray():
    command = [sys.executable, "-X", "importtime", "-m", "raysparse", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for name in ("check", "prepare", "report", "schema", "search", "train", "tune"):
        assert f"\n  {name} " in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "raysparse.cli" in imported
    assert not imported & {"torch", "torchrec", "ray", "pyarrow", "matplotlib"}


@pytest.mark.parametrize("name", ["check", "prepare", "report", "schema", "search", "train", "tune"])
def test_each_command_has_help(name: str):
    result = call(name, "-h")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {name} ")


def test_help_of_prepare_names_every_source():
    words = re.findall(r"[a-z0-9-]+", call("prepare", "--help").output)
    assert {*SOURCES, "drift"} <= set(words)


def test_schema_accepts_the_jobs_and_refuses_an_unknown_key():
    schema = json.loads(call("schema").output)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for path in sorted(JOBS.rglob("*.yaml")):
        assert faults(validator, path) == []
    assert faults(validator, FLIGHTS, "seeed=1") == ["Additional properties are not allowed ('seeed' was unexpected)"]
    assert "('num_worker' was unexpected)" in faults(validator, FLIGHTS, "scaling.num_worker=2")[0]
    assert faults(validator, FLIGHTS, "seed=-1") == ["-1 is less than the minimum of 0"]


def faults(validator: jsonschema.Draft202012Validator, path: Path, *overrides: str) -> list[str]:
    """What an editor would underline: the faults of the job's own kind, below the union over the kinds."""
    found = [fault for error in validator.iter_errors(load_tree(path, overrides)) for fault in error.context or [error]]
    other_kinds = {fault.schema_path[0] for fault in found if list(fault.path) == ["kind"]}
    return [fault.message for fault in found if fault.schema_path[0] not in other_kinds]


def test_check_prints_the_job_with_every_key():
    result = call("check", str(FLIGHTS), "data.batch_size=64", "optimizer.dense.learning_rate=1e-4")
    assert result.exit_code == 0
    tree = parse_yaml(result.stdout, "the output")
    assert tree["seed"] == 1
    assert tree["data"]["batch_size"] == 64
    assert tree["optimizer"]["dense"]["learning_rate"] == 1e-4
    expected = load_job(FLIGHTS, ("data.batch_size=64", "optimizer.dense.learning_rate=1e-4"))
    assert check_job(tree, "the output") == expected


def test_check_lists_all_faults_at_once():
    text = message("check", str(FLIGHTS), "seed=-1", "data.batchsize=64", "scaling.num_workers=two")
    first, *others = text.split("\n")
    assert first == f"{FLIGHTS} has 3 faults:"
    assert sorted(line.split(":")[0] for line in others) == ["  data.batchsize", "  scaling.num_workers", "  seed"]
    assert "did you mean 'batch_size'?" in text


def test_check_of_a_tune_job_checks_the_jobs_of_its_trials():
    path = JOBS / "tune-drift.yaml"
    assert parse_yaml(call("check", str(path)).stdout, "the output")["num_trials"] == 8
    text = message("check", str(path), "job.data.batchsize=64", "job.scaling.num_workers=two")
    first, *others = text.split("\n")
    assert first == "job and space make train jobs that cannot run:"
    assert sorted(line.split(":")[0] for line in others) == ["  data.batchsize", "  scaling.num_workers"]
    assert "did you mean 'batch_size'? (trial 0, trial 1, trial 2 and 9 more)" in text


def test_a_job_file_that_cannot_be_read_is_named(tmp_path: Path):
    path = tmp_path / "none.yaml"
    for command in (("check", str(path)), ("prepare", "table", "--output", "x", "--config", str(path))):
        assert message(*command).startswith(f"cannot read {path}: ")
    path.write_text("kind: train\nname: [\n")
    assert f"{path} is not valid YAML" in message("train", str(path))
    path.write_text("kind: serve\n")
    assert message("train", str(path)) == f"{path}: kind: found 'serve'; allowed: train, search, tune"


def test_prepare_names_what_it_does_not_know(tmp_path: Path):
    output = ("--output", str(tmp_path / "out"))
    text = message("prepare", "criteo", *output)
    assert text.startswith("the prepare command has 1 fault:\n  prepare.source: found 'criteo'; allowed: ")
    assert all(repr(source) in text for source in [*SOURCES, "drift"])
    text = message("prepare", "flights", *output, "late_minuts=20", "max_bad_rows=-1")
    assert text.startswith("the prepare command has 2 faults:")
    assert "prepare.late_minuts: unknown key; allowed here: input, late_minutes, " in text
    assert "did you mean 'late_minutes'?" in text
    assert "prepare.input: missing" in message("prepare", "avazu", *output)
    assert "'late_minutes' is not of the form key=value" in message("prepare", "flights", *output, "late_minutes")
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_prepare_maps_a_table_and_keeps_what_is_finished(tmp_path: Path):
    (tmp_path / "clicks.csv").write_text(CLICKS)
    (tmp_path / "clicks.yaml").write_text(MAPPING)
    output = str(tmp_path / "out")
    command = ("prepare", "table", "--input", str(tmp_path / "clicks.csv"), "--config", str(tmp_path / "clicks.yaml"))
    result = call(*command, "--output", output, "rows_per_table=50")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[:3]] == [
        ["day", "rows", "base", "rate", "best", "NE"],
        ["2024-05-01", "3", "0.3333", "-"],
        ["2024-05-02", "2", "1.0000", "-"],
    ]
    assert result.stdout.splitlines()[3:] == [
        f"5 rows of 2 days in {output}; 1 rejected",
        f"  1 rows: the label is not 0 or 1 (see {output}/rejects)",
    ]
    dataset = Dataset.open(output)
    assert {feature.name: feature.rows for feature in dataset.schema.ids} == {"user": 50, "item": 20}

    assert "holds a finished data set; " in message(*command, "--output", output)
    assert Dataset.open(output).manifest == dataset.manifest
    assert call(*command, "--output", output, "--overwrite", "rows_per_table=60").exit_code == 0
    assert Dataset.open(output).schema.ids[0].rows == 60


def test_train_leaves_a_run_that_is_there_alone(tmp_path: Path):
    folder = write_run(tmp_path / "run", [record("2013-01-01", "trained")], job="kind: train\n")
    (tmp_path / "run" / "owner").write_text("0a")
    text = message("train", str(FLIGHTS), f"run_folder={folder}")
    assert f"the run {folder} exists already" in text
    assert "--resume" in text
    assert "--fresh" in text
    assert (tmp_path / "run" / "job.yaml").read_text() == "kind: train\n"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["history.jsonl", "job.yaml", "owner"]


def test_a_tune_run_has_no_report_of_its_own(tmp_path: Path):
    (tmp_path / "trials.jsonl").write_text("")
    assert message("report", str(tmp_path)) == (
        f"RUN_FOLDER: found the tune run {tmp_path}, which has no report of its own; allowed: a search or a train run, "
        "such as one of its trials"
    )


def test_report_needs_a_history(tmp_path: Path):
    assert message("report", str(tmp_path)) == (
        f"{tmp_path}/history.jsonl is missing: a run folder has one from its first finished day on"
    )
    assert list(tmp_path.iterdir()) == []
    folder = write_run(tmp_path / "run", [record("2013-01-01", "trained")])
    result = call("report", folder)
    assert result.exit_code == 0
    assert result.stdout == f"{folder}/report.html\n"
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!doctype html>")
