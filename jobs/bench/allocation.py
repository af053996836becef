"""Whether a learned allocation of the budget beats rules and a grid by hand, for three architectures at equal MACs.

python jobs/bench/allocation.py run --folder FOLDER [--seeds 1 2 3 4 5] [--parallel 2]
python jobs/bench/allocation.py table --folder FOLDER --results FILE.csv

All arms of a run are pruned on the same day from the same dense model and keep their masks. `run` goes on where it was
stopped; `table` adds a folder's runs to a file of results, as that of ads.py does. The grid by hand varies what the
head's inputs and its first layer keep relative to the other layers.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ads import Result, arms_in, gathered, interval

JOB = Path(__file__).with_name("ads_allocation.yaml")
DEEP = [512, 256, 64]
MODELS: dict[str, tuple[dict[str, Any], str, str]] = {
    "dlrm": ({"kind": "dlrm", "bottom": [64], "top": DEEP}, "pairs", "top.0.2"),
    "deepfm": ({"kind": "deepfm", "deep": DEEP}, "fields", "deep.0.2"),
    "dcn": ({"kind": "dcn", "deep": DEEP}, "fields", "deep.2"),
}
"""Each architecture with the places of its inputs and of its first layer."""
BUDGETS = {"25": 0.25, "10": 0.1}
GRID = [shares for shares in itertools.product((0.5, 1.0, 2.0), repeat=2) if shares != (1.0, 1.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "run":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        # A seed's runs follow each other: they read one stream, which the first of them makes.
        with ThreadPoolExecutor(arguments.parallel) as pool:
            list(pool.map(lambda seed: [train(arguments.folder, model, seed) for model in MODELS], arguments.seeds))
    else:
        print(table(gathered(arguments.folder, arguments.results)))


def callbacks_of(inputs: str, first_layer: str) -> list[dict[str, Any]]:
    pruners: dict[str, dict[str, Any]] = {
        "global": {"kind": "greedy"},
        "uniform": {"kind": "greedy", "allocation": "uniform"},
        "erk": {"kind": "greedy", "allocation": "erk"},
        "gates": {"kind": "gates"},
        "hard_concrete": {"kind": "hard_concrete"},
        "umec": {"kind": "umec"},
    }
    for number, (of_inputs, of_layer) in enumerate(GRID):
        shares = {inputs: of_inputs, first_layer: of_layer}
        pruners[f"hand_{number}"] = {"kind": "greedy", "allocation": "by_hand", "shares": shares}
    return [
        {
            "kind": "sparsity",
            "name": f"{name}_{suffix}",
            "budget": budget,
            "refresh": {"kind": "never"},
            "pruner": pruner,
        }
        for suffix, budget in BUDGETS.items()
        for name, pruner in pruners.items()
    ]


def train(folder: Path, name: str, seed: int) -> None:
    run = folder / f"{name}-{seed}"
    if (run / "summary.json").exists():
        return
    model, inputs, first_layer = MODELS[name]
    overrides = [
        f"run_folder={run}",
        f"data.path={folder / f'data-{seed}'}",
        f"data.prepare.seed={seed}",
        f"seed={seed}",
        f"model={json.dumps(model)}",
        f"callbacks={json.dumps(callbacks_of(inputs, first_layer))}",
    ]
    with (folder / f"{name}-{seed}.log").open("w") as log:
        command = [sys.executable, "-m", "raysparse", "train", str(JOB), "--resume", *overrides]
        subprocess.run(command, check=True, stdout=log, stderr=log)
    print(f"{name}-{seed} done", flush=True)


def table(results: list[Result]) -> str:
    titles = ["global", "uniform", "erk", "best by hand", "by hand", "gates", "hard concrete", "umec"]
    lines = [
        "| model | MACs left | seeds | " + " | ".join(titles) + " |",
        "| --- | --- | --- |" + " --- |" * len(titles),
    ]
    for name, suffix in itertools.product(MODELS, BUDGETS):
        means: dict[str, list[float]] = defaultdict(list)
        for arm, seeds in arms_in(results, name).items():
            if arm.endswith(f"_{suffix}"):
                means[arm.removesuffix(f"_{suffix}")] += [seed.all for seed in seeds]
        if not means:
            continue
        best = min((arm for arm in means if arm.startswith("hand_")), key=lambda arm: statistics.mean(means[arm]))
        of_inputs, of_layer = GRID[int(best.removeprefix("hand_"))]
        cells = [name, f"{suffix} %", str(len(means["global"]))]
        cells += [interval(means[arm]) for arm in ("global", "uniform", "erk", best)]
        cells.append(f"inputs x{of_inputs:g}, first layer x{of_layer:g}")
        cells += [interval(means[arm]) for arm in ("gates", "hard_concrete", "umec")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
