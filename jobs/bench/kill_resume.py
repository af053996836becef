"""Kills workers and drivers of a run at random moments and compares its history with that of a run left alone.

python jobs/bench/kill_resume.py JOB.yaml --folder FOLDER [--worker-kills 10] [--driver-kills 3] [KEY=VALUE]...
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PAUSE_S = 0.5
"""Longest time between a line of history and a kill, about that of a day."""
TIMES = ("samples_per_s", "score_samples_per_s", "train_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--worker-kills", type=int, default=10)
    parser.add_argument("--driver-kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments, overrides = parser.parse_known_args()
    folder = Path(arguments.folder)
    draws = random.Random(arguments.seed)
    overrides += ["scaling.max_restarts=100", "checkpoint.every_minutes=0.1"]
    start(arguments.job, folder / "whole", overrides, "--fresh").wait()
    reference = history(folder / "whole")
    print(f"whole run: {len(reference)} lines", flush=True)
    marks = drawn_marks(draws, len(reference), arguments.worker_kills)
    check(kill_workers(arguments.job, folder / "workers", overrides, marks, draws), reference, "workers")
    marks = drawn_marks(draws, len(reference), arguments.driver_kills)
    check(kill_drivers(arguments.job, folder / "drivers", overrides, marks, draws), reference, "driver")


def drawn_marks(draws: random.Random, num_lines: int, num_kills: int) -> list[int]:
    """Lines of history after which to kill, spread over the run; its clock would depend on the machine's speed."""
    return sorted(draws.sample(range(num_lines), num_kills))


def kill_workers(job: str, run: Path, overrides: list[str], marks: list[int], draws: random.Random) -> Path:
    driver = start(job, run, overrides, "--fresh")
    for kill, mark in enumerate(marks, start=1):
        wait_for(run, mark, driver)
        time.sleep(draws.uniform(0.0, PAUSE_S))
        victims = workers_of(driver.pid)
        draws.choice(victims).send_signal(signal.SIGKILL)
        print(f"kill {kill}: worker after {len(history(run))} lines of history", flush=True)
        psutil.wait_procs(victims, timeout=60)
    if code := driver.wait():
        sys.exit(f"the run ended with {code}")
    return run


def kill_drivers(job: str, run: Path, overrides: list[str], marks: list[int], draws: random.Random) -> Path:
    for kill, mark in enumerate(marks, start=1):
        driver = start(job, run, overrides, "--fresh" if kill == 1 else "--resume")
        wait_for(run, mark, driver)
        time.sleep(draws.uniform(0.0, PAUSE_S))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        print(f"kill {kill}: driver after {len(history(run))} lines of history", flush=True)
    if code := start(job, run, overrides, "--resume").wait():
        sys.exit(f"the resumed run ended with {code}")
    return run


def wait_for(run: Path, num_lines: int, driver: "subprocess.Popen[bytes]") -> None:
    """Wait until a run has so many lines of history and has workers."""
    while len(history(run)) < num_lines or not workers_of(driver.pid):
        if driver.poll() is not None:
            sys.exit(f"the run ended with {driver.returncode} before it had {num_lines} lines of history")
        time.sleep(0.1)


def start(job: str, run: Path, overrides: list[str], flag: str) -> "subprocess.Popen[bytes]":
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "raysparse", "train", job, flag, f"run_folder={run}", *overrides]
    with open(f"{run}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def workers_of(driver: int) -> list[psutil.Process]:
    """The workers of a driver: Ray names their processes."""
    found: list[psutil.Process] = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
            if "RayTrainWorker" in name and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def history(run: Path) -> list[dict[str, object]]:
    path = run / "history.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def check(run: Path, reference: list[dict[str, object]], name: str) -> None:
    found = history(run)
    different = [one["day"] for one, two in zip(found, reference, strict=False) if one != two]
    if len(found) != len(reference) or different:
        sys.exit(f"{name}: {len(found)} lines instead of {len(reference)}, days that differ: {different[:5]}")
    print(f"{name}: all {len(found)} lines equal")


if __name__ == "__main__":
    main()
