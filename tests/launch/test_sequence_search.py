"""Whole searches of sequence encoders on a real Ray of this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from raysparse.data.dataset import TEST, Dataset
from raysparse.errors import ConfigError
from raysparse.job import SearchJob, check_job, require_kind
from raysparse.launch.entrants import Contender, Entrant
from raysparse.launch.sequence_search import SequenceSearch
from raysparse.models.sasrec.config import SampledSoftmaxConfig, SASRecConfig
from raysparse.models.sasrec.supernet import SASRecSupernetConfig
from raysparse.report.search_page import render_search_page
from raysparse.report.search_run import read_search
from raysparse.train.run_folder import RunFolder
from tests.data.datasets import PLAIN, write_dataset
from tests.data.sequence_sets import sequences, write_days, write_parts
from tests.launch.test_search import entries, run, scores, without_times
from tests.train.ranks import history
from tests.train.sequence_jobs import SPACE

ADAM = {"sparse": {"kind": "adam", "learning_rate": 0.02}, "dense": {"learning_rate": 1e-2}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_parts(tmp_path_factory.mktemp("data") / "set", sequences(150)).path


def job_of(data: str, folder: Path, **changes: Any) -> SearchJob:
    tree = {
        "kind": "search",
        "name": "test",
        "run_folder": str(folder),
        "data": {"path": data, "batch_size": 32, "epochs": changes.pop("data.epochs", 3)},
        "space": SPACE,
        "supernet": {"optimizer": ADAM},
        "searcher": {"kind": "nsga2", "population": 6, "num_generations": 1},
        "trials": {"num_actors": 2},
        "finalists": {
            "rank_by": "budgets",
            "budgets": [4_000, 60_000],
            "optimizer": ADAM,
            "learning_rates": [1e-2],
            "weights": "inherited",
            "num_parallel": 2,
        },
        "baselines": [
            {"kind": "sasrec", "embedding_dim": 16, "num_layers": 1, "max_length": 10, "loss": {"kind": "full_softmax"}}
        ],
        **changes,
    }
    return require_kind(SearchJob, check_job(tree, "test"), "test")


def without_latency(results: dict[str, Any]) -> dict[str, Any]:
    """The latency of a finalist that was not finished is measured again."""
    rows = [
        {**row, "latency_us": 0, "runs": [{**one, "latency_us": 0} for one in row["runs"]]} for row in results["rows"]
    ]
    return {**results, "rows": rows}


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_search_finds_a_network_for_each_budget(data: str, tmp_path: Path, ray_cluster: None):
    folder = tmp_path / "run"
    results, summary, screen = run(job_of(data, folder), "new")
    assert (summary["num_trials"], summary["num_failed"]) == (12, 0)
    assert results["metric"] == "ndcg@10"
    assert results["size"] == {"sampled": 2 * 2 * (4 + 16)}
    rows = results["rows"]
    assert [row["kind"] for row in rows] == ["finalist", "finalist", "baseline"]
    for row, budget in zip(rows, (4_000, 60_000), strict=False):
        assert row["macs"] <= budget
        within = [one.objectives for one in entries(folder) if one.objectives and one.objectives["macs"] <= budget]
        assert row["trial_ndcg@10"] == max(1.0 - objectives["1-ndcg@10"] for objectives in within)
    chosen = max(rows[:2], key=lambda row: row["validation_ndcg@10"])
    assert [row["chosen"] for row in rows] == [row is chosen for row in rows]
    # With the supernet's weights one epoch is trained, and what it begins with is scored as well.
    finalist = history(Path(rows[0]["runs"][0]["folder"]))
    assert [line["day"] for line in finalist if line["arm"] == "trained"] == ["epoch-000", "epoch-001", TEST]
    assert finalist[0]["ndcg@10"] == pytest.approx(rows[0]["trial_ndcg@10"], abs=1e-6)
    best = [line for line in finalist if line["arm"] == "best"]
    assert best[0]["hr@10"] == rows[0]["test_hr@10"]
    assert json.loads((folder / "results.json").read_text()) == results

    page = render_search_page(read_search(RunFolder(str(folder))), "run")
    for text in ("Chosen by validation NDCG@10", "test HR@10", rows[0]["key"], "MACs per history", "80 networks"):
        assert text in page

    # While finalists are still trained there are scores alone.
    (folder / "results.json").rename(tmp_path / "results.json")
    assert "NDCG@10 in a trial" in render_search_page(read_search(RunFolder(str(folder))), "run")

    # As a killed driver leaves it, half of the scores and a finalist in the middle; and it goes on in another place.
    whole = scores(folder)
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[:7]))
    (Path(rows[0]["runs"][0]["folder"]) / "summary.json").unlink()
    moved = folder.rename(tmp_path / "moved")
    again, _, screen = run(job_of(data, moved), "resume")
    assert "6 scored choices are taken from journal.jsonl" in screen.messages
    assert scores(moved) == whole
    assert without_latency(without_times(again)) == without_latency(without_times(results))


def test_shared_weights_may_learn_by_a_cheaper_loss_than_networks_alone(data: str, tmp_path: Path):
    sampled = SampledSoftmaxConfig(num_negatives=7)
    job = job_of(data, tmp_path, supernet={"optimizer": ADAM, "loss": sampled.model_dump()})
    search, folder = SequenceSearch(job, Dataset.open(data)), RunFolder(str(tmp_path))
    supernet = search.supernet_job(folder).model
    assert isinstance(supernet, SASRecSupernetConfig)
    assert (supernet.loss, supernet.space.loss.kind) == (sampled, "full_softmax")
    choice = search.space.cheapest
    entrant = Entrant(Contender("finalist", "1", choice, search.space.cost(choice), {}), 1e-2, str(tmp_path / "alone"))
    alone = search.train_job(entrant, folder).model
    assert isinstance(alone, SASRecConfig)
    assert alone.loss.kind == "full_softmax"


def test_epochs_of_shared_weights_count_once_all_axes_are_open(data: str, tmp_path: Path):
    def search(opening_steps: int, epochs: int = 4) -> SequenceSearch:
        supernet = {"optimizer": ADAM, "sandwich": {"opening_steps": opening_steps}, "epochs": epochs}
        return SequenceSearch(job_of(data, tmp_path, supernet=supernet), Dataset.open(data))

    # Five steps an epoch, since 150 rows are learned 32 at a time, and four axes.
    warm_up = [search(steps).supernet_job(RunFolder(str(tmp_path))).warm_up_days for steps in (0, 1, 2, 4)]
    assert warm_up == [0, 1, 2, 4]
    # After 20 steps, four epochs, the next one is the first with all axes.
    assert search(5, epochs=6).supernet_job(RunFolder(str(tmp_path))).warm_up_days == 5
    fault = r"opening_steps: found 5, so that all 4 axes are open after 20 steps, and .* for 20. Allowed: 4 or fewer"
    with pytest.raises(ConfigError, match=fault):
        search(5)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_gradients_find_a_network_within_each_budget(data: str, tmp_path: Path, ray_cluster: None):
    folder = tmp_path / "run"
    budgets = [8_000, 30_000]
    searcher = {"kind": "differentiable", "num_steps": 60, "constraint": {"kind": "dual", "budgets": budgets}}
    finalists = {"rank_by": "budgets", "budgets": budgets[:1], "optimizer": ADAM, "learning_rates": [1e-2]}
    space = {**SPACE, "lengths": [10]}
    supernet = {"optimizer": ADAM, "loss": {"kind": "sampled_softmax", "num_negatives": 16}}
    job = job_of(data, folder, searcher=searcher, finalists=finalists, baselines=[], space=space, supernet=supernet)
    results, summary, screen = run(job, "new")
    assert summary["num_trials"] == 2
    assert "searching 2 networks by gradients, 60 steps each" in screen.phases
    found = json.loads((folder / "relaxed.json").read_text())
    assert [len(one["trace"]) for one in found] == [60, 60]
    # The journal has the scores in the order in which the trials came to an end.
    macs = sorted(objectives["macs"] for _, objectives in scores(folder).values())
    assert all(0.95 * budget <= of_found <= budget for of_found, budget in zip(macs, budgets, strict=True))
    assert [row["macs"] for row in results["rows"]] == macs[:1]
    # A killed driver's networks are not searched again.
    (folder / "journal.jsonl").unlink()
    again, _, screen = run(job, "resume")
    assert not any("by gradients" in phase for phase in screen.phases)
    assert without_times(again) == without_times(results)


@pytest.mark.ray
def test_a_space_and_a_data_set_that_do_not_fit_are_refused(tmp_path: Path, ray_cluster: None):
    clicks, days = tmp_path / "clicks", tmp_path / "days"
    write_dataset(clicks, PLAIN, [[60]] * 4)
    write_days(days, [[([1], [2])], [([1, 2], [3])]])
    with pytest.raises(ConfigError, match="or give a data set of sequences prepared with split=leave_one_out"):
        run(job_of(str(clicks), tmp_path / "one"), "new")
    with pytest.raises(ConfigError, match="data.epochs: found 3, but .* is a stream of days"):
        run(job_of(str(days), tmp_path / "two"), "new")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"data.epochs": None}, "data.epochs: .*how often the train part is learned at most"),
        ({"baselines": [{"kind": "dlrm"}]}, "baselines.0.kind: .*sasrec with space.kind sasrec"),
        (
            {"searcher": {"kind": "evolution", "objective": "log_loss"}},
            'searcher.objective: found "log_loss"; allowed: 1-ndcg@10',
        ),
        ({"finalists": {"rank_by": "budgets"}}, "rank_by budgets with the budgets to keep to"),
    ],
)
def test_a_job_that_is_of_no_sequences_is_refused(tmp_path: Path, changes: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault):
        job_of("data", tmp_path, **changes)
