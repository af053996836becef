"""What a child costs in training time, beside the dense parent alone, in alternating runs.

python jobs/bench/child_cost.py --folder FOLDER [--repeats 5] [--budget 0.1] [--children one evidence copied]

Each run learns from four days. The child is forked on the second, pruned while it lasts, and small from the third on.
The table gives medians over the rounds of a day's training time, and the ratio to the dense model alone on that day.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

JOB = Path(__file__).with_name("speed.yaml")
DAYS = 4
DAY_OF = {"pruning": 1, "small": 2}
"""Days of the run, from 0: on the first the child is pruned, on the second it is small."""
CHILDREN: dict[str, tuple[str, dict[str, object]]] = {
    "one": ("one child, shared tables", {"refresh": {"kind": "never"}}),
    "evidence": ("served child and candidate (evidence)", {"refresh": {"kind": "evidence"}}),
    "copied": ("one child, tables copied", {"refresh": {"kind": "never"}, "tables": "copied"}),
}
ALONE = "dense alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--children", nargs="+", choices=list(CHILDREN), default=list(CHILDREN))
    parser.add_argument("overrides", nargs="*", help="keys of the job")
    arguments = parser.parse_intermixed_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    named = [CHILDREN[name] for name in arguments.children]
    settings = {ALONE: [], **{name: [child(arguments.budget, changes)] for name, changes in named}}
    seconds: dict[str, list[list[float]]] = {name: [] for name in settings}
    for _ in range(arguments.repeats):
        for name, callbacks in settings.items():
            seconds[name].append(days_of(arguments, callbacks))
            print(json.dumps({"name": name, "seconds": seconds[name][-1]}), flush=True)
    print(table(seconds))


def child(budget: float, changes: dict[str, object]) -> dict[str, object]:
    return {"kind": "sparsity", "name": "small", "budget": budget, "first_day": DAY_OF["pruning"], **changes}


def days_of(arguments: argparse.Namespace, callbacks: list[dict[str, object]]) -> list[float]:
    """Run the job; seconds of training of each day."""
    run = arguments.folder / "run"
    overrides = [
        f"run_folder={run}",
        f"data.path={arguments.folder / 'data'}",
        f"data.prepare.num_days={DAYS}",
        "data.prepare.rows_per_day=200_000",
        "model.top=[512, 256, 64]",
        f"callbacks={json.dumps(callbacks)}",
        *arguments.overrides,
    ]
    command = [sys.executable, "-m", "raysparse", "train", str(JOB), "--fresh", *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [line["train_seconds"] for line in history if line["arm"] == "trained"]


def table(seconds: dict[str, list[list[float]]]) -> str:
    lines = [
        "| what | day of pruning, s | ratio | day with the small child, s | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    alone = {day: statistics.median(days[index] for days in seconds[ALONE]) for day, index in DAY_OF.items()}
    for name, rounds in seconds.items():
        cells = [name]
        for day, index in DAY_OF.items():
            median = statistics.median(days[index] for days in rounds)
            cells += [f"{median:.2f}", f"{median / alone[day]:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
