"""Experiments on adaptive dense-to-sparse pruning: every arm, on streams of several seeds, paired by day.

python jobs/bench/ads.py run [KEY=VALUE ...] --folder FOLDER [--streams none slow sudden] [--seeds 1 2 3] [--parallel 2]
  [--arms ARM ...] [--without ARM ...]
python jobs/bench/ads.py table --folder FOLDER --results FILE.csv
python jobs/bench/ads.py figure --results FILE.csv --output FILE.svg

The streams: drift streams without drift, with slow and with sudden drift, a year of flights, and MovieLens, whose raw
files are given as data.prepare.input=PATH. A seed draws a drift stream anew; on the others it draws the weights and the
order of the rows. `run` goes on where it was stopped. `table` adds a folder's runs to a file of results, which holds a
line for each arm and seed, and prints what all of them say. Gaps are relative to the dense arm of the same seed and
day, averaged within a seed first; the intervals are Student's t over the seeds. A second table has the adaptive arm's
differences from the others of its budget, paired by seed.
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Stream:
    """What the arms are compared on."""

    job: Path
    overrides: tuple[str, ...] = ()
    is_drawn: bool = True
    """Whether a seed has a stream of its own."""


STREAMS = {
    "none": Stream(HERE / "ads.yaml", ("data.prepare.drift.kind=none",)),
    "slow": Stream(HERE / "ads.yaml", ("data.prepare.drift.kind=slow", "data.prepare.drift.concepts_per_day=0.5")),
    "sudden": Stream(
        HERE / "ads.yaml",
        ("data.prepare.drift.kind=sudden", "data.prepare.drift.every_days=8", "data.prepare.drift.share=0.25"),
    ),
    "flights": Stream(HERE / "ads_flights.yaml", is_drawn=False),
    "movielens": Stream(HERE / "ads_movielens.yaml", is_drawn=False),
}
DRIFTS = ("none", "slow", "sudden")
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table", "figure"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--streams", nargs="+", default=DRIFTS, choices=list(STREAMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="arms to run; all where none is named")
    parser.add_argument("--without", nargs="+", default=[], metavar="ARM", help="arms to leave out, to save time")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--output", type=Path, default=Path("ads.svg"))
    arguments = parser.parse_intermixed_args()
    if arguments.what == "run":
        run(arguments)
        return
    results = gathered(arguments.folder, arguments.results)
    if arguments.what == "figure":
        draw(results, [stream for stream in arguments.streams if stream in DRIFTS], arguments.output)
    else:
        print(table(results, arguments.streams))
        print()
        print(differences(results, arguments.streams))


def run(arguments: argparse.Namespace) -> None:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    runs = [(stream, seed) for seed in arguments.seeds for stream in arguments.streams]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        list(pool.map(lambda one: train(arguments, *one), runs))


def train(arguments: argparse.Namespace, name: str, seed: int) -> None:
    run = arguments.folder / f"{name}-{seed}"
    if (run / "summary.json").exists():
        return
    stream = STREAMS[name]
    data = arguments.folder / (f"data-{name}-{seed}" if stream.is_drawn else f"data-{name}")
    command = [sys.executable, "-m", "raysparse", "train", str(stream.job), "--resume", f"run_folder={run}"]
    command += [f"data.path={data}", f"seed={seed}", *stream.overrides, *arguments.overrides]
    command += [f"data.prepare.seed={seed}"] if stream.is_drawn else []
    if arguments.arms or arguments.without:
        command.append(f"callbacks={json.dumps(arms_of(stream.job, arguments.arms, arguments.without))}")
    with run.with_suffix(".log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    print(f"{run.name} done", flush=True)


def arms_of(job: Path, named: list[str], without: list[str]) -> list[Record]:
    """Callbacks of a job: those that are named, or all but some."""
    arms = {arm.get("name", arm["kind"]): arm for arm in yaml.safe_load(job.read_text())["callbacks"]}
    return [arm for name, arm in arms.items() if (name in named or not named) and name not in without]


def gaps_of(history: list[Record]) -> dict[str, dict[str, float]]:
    """Per arm and day the NE gap to the dense arm in percent, after the warm-up, where a day's NE is defined."""
    # A small day may have rows of one label alone, and no NE.
    history = [line for line in history if line["ne"] is not None]
    dense = {line["day"]: line["ne"] for line in history if line["arm"] == "trained"}
    gaps: dict[str, dict[str, float]] = defaultdict(dict)
    for line in history:
        if line["arm"] != "trained" and not line["warm_up"] and not line["arm"].endswith((".candidate", ".search")):
            gaps[line["arm"]][line["day"]] = 100.0 * (line["ne"] / dense[line["day"]] - 1.0)
    return gaps


@dataclass(frozen=True)
class Result:
    """What an arm of a run came to."""

    stream: str
    """What its data were, or, where these are the same, its model."""
    seed: int
    arm: str
    all: float
    """Mean NE gap to the dense arm in percent, over the days after the warm-up."""
    first: float
    """The same of the first half of those days."""
    last: float
    """And of the last half."""
    swaps: int
    churn: float | None
    """Mean share of a mask that its renewals change."""


def gathered(folder: Path | None, file: Path | None) -> list[Result]:
    """Results of a file, with those of a folder's runs, which are added to it."""
    results = read_results(file) if file and file.exists() else []
    if folder:
        results = merged(results, results_of(folder))
        if file:
            write_results(results, file)
    return results


def results_of(folder: Path) -> list[Result]:
    """Results of the runs of a folder that have ended."""
    found: list[Result] = []
    for summary in sorted(folder.glob("*-*/summary.json")):
        stream, seed = summary.parent.name.split("-")
        history = [json.loads(line) for line in (summary.parent / "history.jsonl").read_text().splitlines()]
        for arm, gaps in gaps_of(history).items():
            values = [gaps[day] for day in sorted(gaps)]
            half = max(len(values) // 2, 1)
            mine = [line for line in history if line["arm"] == arm]
            churn = [line["churn"] for line in mine if line.get("churn") is not None]
            found.append(
                Result(
                    stream=stream,
                    seed=int(seed),
                    arm=arm,
                    all=round(statistics.mean(values), 5),
                    first=round(statistics.mean(values[:half]), 5),
                    last=round(statistics.mean(values[len(values) // 2 :]), 5),
                    swaps=sum(bool(line.get("swapped")) for line in mine),
                    churn=round(statistics.mean(churn), 5) if churn else None,
                )
            )
    return found


def merged(results: list[Result], added: list[Result]) -> list[Result]:
    """Results with those of other runs, which replace earlier ones of the same arm, stream and seed."""
    again = {(result.stream, result.seed, result.arm) for result in added}
    kept = [result for result in results if (result.stream, result.seed, result.arm) not in again]
    return sorted([*kept, *added], key=lambda result: (result.stream, result.seed))


def read_results(path: Path) -> list[Result]:
    """Results of a file that `write_results` made."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Result(
                stream=line["stream"],
                seed=int(line["seed"]),
                arm=line["arm"],
                all=float(line["all"]),
                first=float(line["first"]),
                last=float(line["last"]),
                swaps=int(line["swaps"]),
                churn=float(line["churn"]) if line["churn"] else None,
            )
            for line in csv.DictReader(file)
        ]


def write_results(results: list[Result], path: Path) -> None:
    """One line a result, under a line of names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(result) for result in results)


def half_width(values: list[float]) -> float:
    """Half the width of the 95 % interval of a mean."""
    return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def interval(values: list[float]) -> str:
    """Mean and half the width of its 95 % interval."""
    mean = statistics.mean(values)
    return f"{mean:.2f}" if len(values) < 2 else f"{mean:.2f} ± {half_width(values):.2f}"


def arms_in(results: list[Result], stream: str) -> dict[str, list[Result]]:
    """Per arm of a stream what its runs came to."""
    arms: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result.stream == stream:
            arms[result.arm].append(result)
    return arms


def table(results: list[Result], streams: Sequence[str]) -> str:
    lines = ["| stream | arm | seeds | gap, all days % | gap, first half % | gap, last half % | swaps | churn |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for stream in streams:
        for arm, seeds in arms_in(results, stream).items():
            cells = [stream, arm, str(len(seeds))]
            cells += [interval([getattr(seed, key) for seed in seeds]) for key in ("all", "first", "last")]
            cells.append(f"{statistics.mean(seed.swaps for seed in seeds):.1f}")
            churn = [seed.churn for seed in seeds if seed.churn is not None]
            cells.append(f"{statistics.mean(churn):.3f}" if churn else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(results: list[Result], streams: Sequence[str]) -> str:
    """How far the adaptive arm is from the others of its budget, paired by seed."""
    lines = ["| stream | arms | seeds | all days | first half | last half |", "| --- | --- | --- | --- | --- | --- |"]
    for stream in streams:
        arms = {arm: {one.seed: one for one in seeds} for arm, seeds in arms_in(results, stream).items()}
        for adaptive in (arm for arm in arms if arm.startswith("adaptive_")):
            budget = adaptive.removeprefix("adaptive")
            others = [arm for arm in arms if arm.endswith(budget) and "." not in arm and arm != adaptive]
            for other in [*others, *(arm for arm in arms if arm == "dense_settled")]:
                seeds = sorted(arms[adaptive].keys() & arms[other].keys())
                pairs = [(arms[adaptive][seed], arms[other][seed]) for seed in seeds]
                cells = [stream, f"{adaptive} - {other}", str(len(seeds))]
                for key in ("all", "first", "last"):
                    cells.append(interval([getattr(one, key) - getattr(two, key) for one, two in pairs]))
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(results: list[Result], drifts: list[str], output: Path) -> None:
    """Draw what a mask loses with its age, and what an arm loses with the time between its renewals."""
    import matplotlib.pyplot as plt

    figure, (ages, periods) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for place, drift in enumerate(drifts):
        arms = arms_in(results, drift)
        of_age = {int(arm[-2:]): arm for arm in arms if ".age_" in arm}
        renewed = [arm.split("_") for arm in arms if arm.startswith("every_")]
        of_period = {int(days): f"every_{days}_10" for _, days, budget in renewed if budget == "10"}
        label, shift = f"{drift} drift" if drift != "none" else "no drift", place - (len(drifts) - 1) / 2
        ages.set_xticks(list(of_age))
        _points(ages, [(age + 0.15 * shift, [seed.all for seed in arms[arm]]) for age, arm in of_age.items()], label)
        points = [(float(period), arm) for period, arm in sorted(of_period.items())]
        points += [(_ADAPTIVE, "adaptive_10"), (_NEVER, "static_10")]
        spread = [(x + 0.15 * shift, [seed.last for seed in arms[arm]]) for x, arm in points]
        _points(periods, spread, label, joined=len(of_period))
    ages.set(title="A mask's age, weights of the day", xlabel="age of the mask, days", ylabel="NE gap to dense, %")
    periods.set(
        title="A tenth of the multiply-adds, last half of the stream",
        xlabel="days between renewals",
        ylabel="NE gap to dense, %",
    )
    periods.set_xticks([1, 2, 5, 10, _ADAPTIVE, _NEVER], ["1", "2", "5", "10", "adaptive", "never"])
    for axes in (ages, periods):
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    ages.legend(frameon=False, loc="upper left")
    figure.savefig(output, metadata={"Date": None})


_ADAPTIVE, _NEVER = 13.0, 16.0
"""Where the arms without a period stand on the axis of periods."""


def _points(axes: Any, points: list[tuple[float, list[float]]], label: str, joined: int | None = None) -> None:
    """Each seed a small dot, their mean a large one: a symmetric interval would hide that some seeds lose much."""
    x = [place for place, _ in points]
    means = [statistics.mean(seeds) for _, seeds in points]
    color = axes.plot(x[:joined], means[:joined], linewidth=1.5)[0].get_color()
    axes.plot(x, means, "o", markersize=6, color=color, label=label)
    dots = [(place, seed) for place, seeds in points for seed in seeds]
    axes.plot(*zip(*dots, strict=True), "o", markersize=2.5, color=color, alpha=0.6)


if __name__ == "__main__":
    main()
