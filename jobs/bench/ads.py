"""Experiments on adaptive dense-to-sparse pruning: every arm, on drift streams of several seeds, paired by day.

python jobs/bench/ads.py run --folder FOLDER [--drifts none slow sudden] [--seeds 1 2 3 4 5] [--parallel 2]
python jobs/bench/ads.py table --folder FOLDER

`run` goes on where it was stopped. Gaps are relative to the dense arm of the same seed and day, averaged within a seed
first; the intervals are Student's t over the seeds.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scipy import stats

JOB = Path(__file__).with_name("ads.yaml")
DRIFTS = {
    "none": ["data.prepare.drift.kind=none"],
    "slow": ["data.prepare.drift.kind=slow", "data.prepare.drift.concepts_per_day=0.5"],
    "sudden": [
        "data.prepare.drift.kind=sudden",
        "data.prepare.drift.every_days=8",
        "data.prepare.drift.share=0.25",
    ],
}
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--drifts", nargs="+", default=list(DRIFTS), choices=list(DRIFTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--job", default=str(JOB))
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if arguments.what == "run":
        runs = [(drift, seed) for seed in arguments.seeds for drift in arguments.drifts]
        with ThreadPoolExecutor(arguments.parallel) as pool:
            list(pool.map(lambda run: train(arguments, *run), runs))
    print(table(arguments.folder, arguments.drifts))


def train(arguments: argparse.Namespace, drift: str, seed: int) -> None:
    name = f"{drift}-{seed}"
    run = arguments.folder / name
    if (run / "summary.json").exists():
        return
    command = [sys.executable, "-m", "raysparse", "train", arguments.job, "--resume", f"run_folder={run}"]
    command += [f"data.path={arguments.folder}/data-{name}", f"data.prepare.seed={seed}", f"seed={seed}"]
    with (arguments.folder / f"{name}.log").open("w") as log:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([*command, *DRIFTS[drift], *arguments.overrides], check=True, stdout=log, stderr=log)
    print(f"{name} done", flush=True)


def gaps_of(history: list[Record]) -> dict[str, dict[str, float]]:
    """Per arm and day the NE gap to the dense arm in percent, after the warm-up."""
    dense = {line["day"]: line["ne"] for line in history if line["arm"] == "trained"}
    gaps: dict[str, dict[str, float]] = defaultdict(dict)
    for line in history:
        if line["arm"] != "trained" and not line["warm_up"] and not line["arm"].endswith((".candidate", ".search")):
            gaps[line["arm"]][line["day"]] = 100.0 * (line["ne"] / dense[line["day"]] - 1.0)
    return gaps


def interval(values: list[float]) -> str:
    """Mean and half the width of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.2f} ± {half:.2f}"


def table(folder: Path, drifts: list[str]) -> str:
    lines = ["| drift | arm | seeds | gap, all days % | gap, first half % | gap, last half % | swaps | churn |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for drift in drifts:
        rows: dict[str, list[Record]] = defaultdict(list)
        for summary in sorted(folder.glob(f"{drift}-*/summary.json")):
            text = (summary.parent / "history.jsonl").read_text()
            history = [json.loads(line) for line in text.splitlines()]
            for arm, gaps in gaps_of(history).items():
                rows[arm].append(of_seed(arm, gaps, history))
        for arm, seeds in rows.items():
            cells = [drift, arm, str(len(seeds))]
            cells += [interval([seed[key] for seed in seeds]) for key in ("all", "first", "last")]
            cells.append(f"{statistics.mean(seed['swaps'] for seed in seeds):.1f}")
            churn = [seed["churn"] for seed in seeds if seed["churn"] is not None]
            cells.append(f"{statistics.mean(churn):.3f}" if churn else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def of_seed(arm: str, gaps: dict[str, float], history: list[Record]) -> Record:
    values = [gaps[day] for day in sorted(gaps)]
    half = len(values) // 2
    mine = [line for line in history if line["arm"] == arm]
    churn = [line["churn"] for line in mine if line.get("churn") is not None]
    return {
        "all": statistics.mean(values),
        "first": statistics.mean(values[: max(half, 1)]),
        "last": statistics.mean(values[half:]),
        "swaps": sum(bool(line.get("swapped")) for line in mine),
        "churn": statistics.mean(churn) if churn else None,
    }


if __name__ == "__main__":
    main()
