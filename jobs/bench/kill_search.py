"""Kills drivers, actors and a node of a search at random moments and compares what it comes to with one left alone.

python jobs/bench/kill_search.py --folder FOLDER [--driver-kills 4] [--actor-kills 3] [KEY=VALUE]...

jobs/search-drift.yaml on a small stream. A driver is killed while it trains the supernet, and after drawn numbers of
journaled trials or ended runs, and started again with --resume; actors are killed after drawn numbers of trials; and of
two nodes with a core each (two of Ray's on this machine) one is killed with all its processes. The same are to be all
scores by number, and finalists and baselines, their times aside.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from raysparse.report.search_run import JOURNAL, RESULTS, SUPERNET
from raysparse.search.journal import read_journal
from raysparse.train.run_folder import HISTORY

JOB = Path(__file__).parents[1] / "search-drift.yaml"
NUM_TRIALS = 40
SMALL = (
    "data.prepare.num_days=5",
    "data.prepare.rows_per_day=4_000",
    "searcher={kind: evolution, num_initial: 20, tournament: 5, num_children: 5, num_generations: 4}",
    "scoring={tuned: network, tuning_rows: 2_000, tuning_steps: 60, tuning_batch_size: 128}",
    # What ASHA stops depends on which of two runs ends a day first.
    "finalists.asha=null",
    "finalists.count=2",
    "finalists.learning_rates=[4e-3]",
    "baselines=[{kind: dcn, embedding_dim: 16}]",
    "scaling.max_restarts=9",
)
NUM_RUNS = 3
"""Finalists and baselines."""
PAUSE_S = 0.5
"""Longest time between what is waited for and a kill, about that of a trial."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--driver-kills", type=int, default=4)
    parser.add_argument("--actor-kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder: Path = arguments.folder.absolute()
    draws = random.Random(arguments.seed)
    overrides = (*SMALL, f"data.path={folder / 'data'}", *arguments.overrides)
    finish(start(folder / "whole", overrides, "--fresh"))
    reference = outcome(folder / "whole")
    print(f"whole: {len(reference['scores'])} scores, {len(reference['rows'])} networks trained alone", flush=True)
    for name, kill in (
        ("drivers", lambda run: kill_drivers(run, overrides, arguments.driver_kills, draws)),
        ("actors", lambda run: kill_actors(run, overrides, arguments.actor_kills, draws)),
        ("node", lambda run: kill_node(run, overrides, draws)),
    ):
        kill(folder / name)
        compare(name, outcome(folder / name), reference)


def kill_drivers(run: Path, overrides: tuple[str, ...], num_kills: int, draws: random.Random) -> None:
    marks = sorted(draws.sample(range(1, NUM_TRIALS + NUM_RUNS), num_kills - 1))
    for kill, mark in enumerate([0, *marks], start=1):
        driver = start(run, overrides, "--fresh" if kill == 1 else "--resume")
        # The first one while the supernet learns.
        wait(driver, lambda mark=mark: progress(run) >= mark if mark else (run / SUPERNET / HISTORY).exists())
        time.sleep(draws.uniform(0.0, PAUSE_S))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        print(f"kill {kill}: driver after {num_scores(run)} trials and {num_ended(run)} runs", flush=True)
    finish(start(run, overrides, "--resume"))


def kill_actors(run: Path, overrides: tuple[str, ...], num_kills: int, draws: random.Random) -> None:
    driver = start(run, overrides, "--fresh")
    for kill, mark in enumerate(sorted(draws.sample(range(1, NUM_TRIALS - 5), num_kills)), start=1):
        wait(driver, lambda mark=mark: num_scores(run) >= mark)
        time.sleep(draws.uniform(0.0, PAUSE_S))
        # Those of a killed one's place are a while in coming.
        wait(driver, lambda: bool(actors_of(driver)))
        draws.choice(actors_of(driver)).send_signal(signal.SIGKILL)
        print(f"kill {kill}: an actor after {num_scores(run)} trials", flush=True)
    finish(driver)


def kill_node(run: Path, overrides: tuple[str, ...], draws: random.Random) -> None:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        driver = start(run, overrides, "--fresh", RAY_ADDRESS=str(cluster.address))
        mark = draws.randrange(5, NUM_TRIALS // 2)
        wait(driver, lambda: num_scores(run) >= mark)
        cluster.remove_node(node, allow_graceful=False)
        print(f"kill 1: a node after {num_scores(run)} trials", flush=True)
        finish(driver)
    finally:
        cluster.shutdown()


def start(run: Path, overrides: tuple[str, ...], flag: str, **environment: str) -> "subprocess.Popen[bytes]":
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "raysparse", "search", str(JOB), flag, f"run_folder={run}", *overrides]
    with open(f"{run}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})


def finish(driver: "subprocess.Popen[bytes]") -> None:
    if code := driver.wait():
        sys.exit(f"a search ended with {code}")


def wait(driver: "subprocess.Popen[bytes]", until: Callable[[], bool]) -> None:
    while not until():
        if driver.poll() is not None:
            sys.exit(f"a search ended with {driver.returncode} before it could be killed")
        time.sleep(0.05)


def actors_of(driver: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The processes that score choices: Ray names them by their class, and Ray Tune wraps it."""
    found = psutil.Process(driver.pid).children(recursive=True)
    return [one for one in found if any(name in command_of(one) for name in ("ScoringActor", "ResourceTrainable"))]


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.Error:
        return ""


def progress(run: Path) -> int:
    return num_scores(run) + num_ended(run)


def num_scores(run: Path) -> int:
    path = run / JOURNAL
    return max(0, path.read_text().count("\n") - 1) if path.exists() else 0


def num_ended(run: Path) -> int:
    return sum(line.get("status") == "finished" for line in log_lines(run))


def log_lines(run: Path) -> Iterator[dict[str, Any]]:
    for path in (run / "contest").glob("*.jsonl"):
        yield from (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))


def outcome(run: Path) -> dict[str, Any]:
    """What a search came to; ended with an error where a choice was scored twice."""
    _, entries = read_journal(run / JOURNAL)
    keys = [entry.key for entry in entries]
    if len(set(keys)) < len(keys):
        sys.exit(f"{run}: a choice was scored twice")
    rows = json.loads((run / RESULTS).read_text())["rows"]
    for row in rows:
        row.pop("latency_us")
        row["runs"] = [{key: value for key, value in one.items() if "log_loss" in key} for one in row["runs"]]
    return {"scores": {entry.number: (entry.key, entry.objectives) for entry in entries}, "rows": rows}


def compare(name: str, found: dict[str, Any], reference: dict[str, Any]) -> None:
    different = [number for number, score in reference["scores"].items() if found["scores"].get(number) != score]
    if different or len(found["scores"]) != len(reference["scores"]) or found["rows"] != reference["rows"]:
        sys.exit(f"{name}: scores that differ: {different[:5]}; rows equal: {found['rows'] == reference['rows']}")
    print(f"{name}: all {len(found['scores'])} scores and {len(found['rows'])} networks equal", flush=True)


if __name__ == "__main__":
    main()
