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
    moments = random.Random(arguments.seed)
    overrides += ["scaling.max_restarts=100", "checkpoint.every_minutes=0.1"]
    start(arguments.job, folder / "whole", overrides, "--fresh").wait()
    reference = history(folder / "whole")
    print(f"whole run: {len(reference)} lines")
    check(kill_workers(arguments, folder / "workers", overrides, moments), reference, "workers")
    check(kill_drivers(arguments, folder / "drivers", overrides, moments), reference, "driver")


def kill_workers(arguments: argparse.Namespace, run: Path, overrides: list[str], moments: random.Random) -> Path:
    driver = start(arguments.job, run, overrides, "--fresh")
    kills = 0
    while driver.poll() is None:
        if kills < arguments.worker_kills and training_workers(driver.pid):
            time.sleep(moments.uniform(0.0, 8.0))
            workers = training_workers(driver.pid)
            if not workers:
                continue
            victim = moments.choice(workers)
            victim.send_signal(signal.SIGKILL)
            kills += 1
            print(f"kill {kills}: worker {victim.pid} after {len(history(run))} lines of history", flush=True)
            psutil.wait_procs(workers, timeout=60)
        time.sleep(0.1)
    if driver.returncode or kills < arguments.worker_kills:
        sys.exit(f"the run ended with {driver.returncode} after {kills} kills")
    return run


def kill_drivers(arguments: argparse.Namespace, run: Path, overrides: list[str], moments: random.Random) -> Path:
    for kill in range(arguments.driver_kills):
        driver = start(arguments.job, run, overrides, "--fresh" if kill == 0 else "--resume")
        while not training_workers(driver.pid):
            time.sleep(0.1)
        time.sleep(moments.uniform(2.0, 12.0))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        print(f"kill {kill + 1}: driver after {len(history(run))} lines of history", flush=True)
    if code := start(arguments.job, run, overrides, "--resume").wait():
        sys.exit(f"the resumed run ended with {code}")
    return run


def start(job: str, run: Path, overrides: list[str], flag: str) -> "subprocess.Popen[bytes]":
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "raysparse", "train", job, flag, f"run_folder={run}", *overrides]
    with open(f"{run}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def training_workers(driver: int) -> list[psutil.Process]:
    """The workers of a driver that have begun to train: Ray names their processes."""
    found: list[psutil.Process] = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
            if "RayTrainWorker" in name and process.status() != psutil.STATUS_ZOMBIE and busy(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


def busy(process: psutil.Process) -> bool:
    return process.cpu_times().user > 4.0  # imports alone take as long


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
