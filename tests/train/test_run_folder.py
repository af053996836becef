from pathlib import Path

import pytest

from raysparse.errors import ConfigError, DataError, RunTakenError
from raysparse.train.checkpoint import CheckpointFolder
from raysparse.train.run_folder import RunFolder, RunMode

MODES: tuple[RunMode, ...] = ("new", "resume", "fresh")


def opened(path: Path, mode: RunMode, job: str = "job") -> RunFolder:
    """Open a run folder, which fails where a job that is there is another one."""
    folder = RunFolder(str(path))

    def refuse_changes(text: str, origin: str) -> None:
        assert (text, origin) == (job, folder.url("job.yaml"))

    folder.open(job, mode, refuse_changes)
    return folder


def contents(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir() if file.is_file()}


def test_a_folder_with_a_job_file_of_the_users_own_is_left_alone(tmp_path: Path):
    files = {"job.yaml": "mine", "notes.txt": "too"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for mode in MODES:
        with pytest.raises(ConfigError, match="holds other things than a run; choose another folder"):
            opened(tmp_path, mode, "mine")
    assert contents(tmp_path) == files


def test_what_no_run_makes_is_named_and_not_deleted_with_a_run(tmp_path: Path):
    opened(tmp_path, "new")
    for name in ("notes.txt", "history.jsonl", "plan.json.partial"):
        (tmp_path / name).write_text("x")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="holds notes.txt beside the run that is to be deleted; move that away"):
        opened(tmp_path, "fresh", "another")
    assert contents(tmp_path) == before
    opened(tmp_path, "resume")
    (tmp_path / "notes.txt").unlink()
    opened(tmp_path, "fresh", "another")
    assert contents(tmp_path).keys() == {"job.yaml", "owner"}
    assert contents(tmp_path)["job.yaml"] == "another"


def test_a_run_that_is_deleted_has_ended(tmp_path: Path):
    folder = opened(tmp_path, "new")
    old = RunFolder(folder.path, folder.claim())
    opened(tmp_path, "resume")
    old.write_history([{"day": "000"}])  # whoever resumes takes the folder over once its workers start
    opened(tmp_path, "fresh")
    with pytest.raises(RunTakenError):
        old.write_history([{"day": "001"}])


@pytest.mark.parametrize("mode", MODES)
def test_a_rest_of_a_run_that_had_not_begun_or_was_being_deleted_is_not_gone_on_with(tmp_path: Path, mode: RunMode):
    for name in ("owner.partial", "job.yaml.partial", "history.jsonl"):
        (tmp_path / name).write_text("x")
    opened(tmp_path, mode)
    assert contents(tmp_path).keys() == {"job.yaml", "owner"}


@pytest.mark.parametrize("made_by", ["owner", "supernet"])
def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path, made_by: str):
    (tmp_path / "job.yaml").write_text("job")
    (tmp_path / made_by).mkdir() if made_by == "supernet" else (tmp_path / made_by).write_text("x")
    with pytest.raises(ConfigError, match="exists already"):
        opened(tmp_path, "new")
    opened(tmp_path, "resume")
    opened(tmp_path, "fresh", "another")
    assert (tmp_path / "job.yaml").read_text() == "another"
    assert not (tmp_path / "supernet").exists()


def test_who_was_overtaken_writes_no_more(tmp_path: Path):
    driver = RunFolder(str(tmp_path / "run"))
    old = RunFolder(driver.path, driver.claim())
    old.write_history([{"day": "000"}])
    new = RunFolder(driver.path, driver.claim())
    with pytest.raises(RunTakenError, match="was taken over by another process of raysparse; this one ends"):
        old.write_history([{"day": "001"}])
    with pytest.raises(RunTakenError):
        CheckpointFolder(old).finish("step-000000001", {})
    assert new.history() == [{"day": "000"}]
    new.write_history([{"day": "002"}])
    assert new.history() == [{"day": "002"}]


def test_who_holds_a_folder_ends_once_it_is_begun_anew(tmp_path: Path):
    driver, inner = RunFolder(str(tmp_path / "run")), RunFolder(str(tmp_path / "run" / "supernet"))
    driver.open("job", "new", lambda text, origin: None)
    held, of_supernet = driver.held(), RunFolder(inner.path, inner.claim())
    driver.open("job", "resume", lambda text, origin: None)
    held.write("phases.json", "{}")
    driver.open("job", "fresh", lambda text, origin: None)
    for old in (held, of_supernet):
        with pytest.raises(RunTakenError, match="was taken over by another process"):
            old.write("results.json", "{}")


def test_a_broken_line_of_the_history_is_named(tmp_path: Path):
    folder = RunFolder(str(tmp_path / "run"))
    assert folder.history() == []
    folder.write("history.jsonl", '{"day": "000"}\n{"day": \n')
    with pytest.raises(DataError, match=r"history.jsonl, line 2 is no JSON"):
        folder.history()
