import io
from typing import Any

from raysparse.report.tune_console import TuneConsole, short_keys, trial_lines

RATES = ("optimizer.sparse.learning_rate", "optimizer.dense.learning_rate")


def trial(number: int, status: str, rates: tuple[float, float], **fields: Any) -> dict[str, Any]:
    return {
        "number": number,
        "values": dict(zip(RATES, rates, strict=True)),
        "run_folder": f"runs/x/trials/{number:03d}",
        "status": status,
        "means": [],
        "metric": None,
        "auc": None,
        "seconds": None,
        "error": None,
        **fields,
    }


TRIALS = [
    trial(1, "finished", (0.1, 1e-05), metric=0.4321, auc=0.75, seconds=43.0),
    trial(0, "stopped", (0.25, 0.02), means=[0.6, 0.51]),
    trial(2, "failed", (0.5, 0.03), error="the loss is\nnan " + "!" * 99),
]


def test_keys_are_cut_to_what_tells_them_apart():
    assert short_keys(RATES) == ["sparse.learning_rate", "dense.learning_rate"]
    assert short_keys(["model", "data.batch_size"]) == ["model", "batch_size"]
    assert short_keys(["seed", "data.seed"]) == ["seed", "data.seed"]


def test_a_table_keeps_the_order_and_says_how_each_trial_ended():
    assert trial_lines(TRIALS, "log_loss") == [
        "trial  log loss     AUC  time  sparse.learning_rate  dense.learning_rate  how it ended",
        "    1   0.43210  0.7500  43 s                   0.1                1e-05  finished",
        "    0         -       -     -                  0.25                 0.02  stopped after 2 scores at 0.51000",
        "    2         -       -     -                   0.5                 0.03  failed: the loss is nan "
        + "!" * 46
        + "..",
    ]


def test_trials_of_a_sequence_model_have_no_column_of_auc():
    lines = trial_lines([trial(0, "finished", (0.1, 0.2), metric=0.95, seconds=43.0)], "1-ndcg@10")
    assert lines == [
        "trial  1 - NDCG@10  time  sparse.learning_rate  dense.learning_rate  how it ended",
        "    0      0.95000  43 s                   0.1                  0.2  finished",
    ]


def test_a_folder_with_a_space_in_its_name_can_be_pasted():
    stream = io.StringIO()
    best = {"number": 0, "run_folder": "my runs/x/trials/000"}
    summary = {"status": "finished", "seconds": 1.0, "num_trials": 1, "num_stopped": 0, "num_failed": 0}
    with TuneConsole(stream, is_terminal=False) as console:
        console.finish({**summary, "metric": "ne", "trials": [], "best": best}, "my runs/x")
    assert "  raysparse train 'my runs/x/trials/000/job.yaml' 'run_folder=my runs/x/best'" in stream.getvalue()


def test_a_run_is_told_line_by_line_and_ends_with_what_can_be_pasted():
    stream = io.StringIO()
    with TuneConsole(stream, is_terminal=False) as console:
        console.start("x", "runs/x")
        console.trial_started(1, {**TRIALS[0]["values"], "model": {"kind": "dlrm", "top": [256, 128, 64, 32]}})
        console.message("trial 1: goes on")
        console.trial_ended(TRIALS[0], 1, 3)
        console.trial_ended(TRIALS[1], 2, 3)
        console.trial_ended(TRIALS[2], 3, 3)
    best = {"number": 1, "run_folder": "runs/x/trials/001"}
    summary = {
        "status": "finished",
        "seconds": 90.0,
        "metric": "log_loss",
        "num_trials": 3,
        "num_stopped": 1,
        "num_failed": 1,
        "best": best,
        "trials": TRIALS,
    }
    console.finish(summary, "runs/x")
    lines = stream.getvalue().splitlines()
    assert lines[:6] == [
        "x",
        "run folder runs/x",
        'trial 1: sparse.learning_rate 0.1, dense.learning_rate 1e-05, model {"kind": "dlrm", "top": [256, ..',
        "trial 1: goes on",
        "trial 1 finished in 43 s: 0.43210; 1 of 3 done",
        "trial 0 stopped after 2 scores at 0.51000; 2 of 3 done",
    ]
    assert lines[6] == "trial 2 failed: the loss is nan " + "!" * 99 + "; 3 of 3 done"
    assert lines[8] == "finished in 1 min 30 s: 3 trials, 1 stopped, 1 failed"
    assert lines[9:13] == trial_lines(TRIALS, "log_loss")
    assert lines[13:] == [
        "best: trial 1, runs/x/trials/001; its job in a run folder of its own:",
        "  raysparse train runs/x/trials/001/job.yaml run_folder=runs/x/best",
        "run folder runs/x",
    ]
    # A run of which nothing has finished has no best trial to show.
    stream.truncate(0)
    console.finish({**summary, "best": None, "trials": TRIALS[1:]}, "runs/x")
    assert "best:" not in stream.getvalue()
