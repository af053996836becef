"""Training speed of `raysparse train` beside a bare TorchRec loop and other libraries, in alternating runs.

python jobs/bench/speed.py --peers PEERS_VENV --folder FOLDER [--repeats 5] [--rows 10000 100000 1000000]

Every measurement is a process of its own; one round runs each of them once, and the table gives medians over the
rounds. Set the peers' environment up with jobs/bench/peers_install.sh.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from raysparse.data.dataset import Dataset
from raysparse.data.stream import DayStream, StreamConfig

HERE = Path(__file__).parent
MAIN_ROWS = 100_000
"""Both forms are measured with tables of so many rows; with others, one worker beside the other libraries."""
FORMS = {"1 worker x 2 threads": (1, 2), "2 workers x 1 thread": (2, 1)}
PEERS = {
    "FuxiCTR DLRM, default": ("fuxictr", "default"),
    "FuxiCTR DLRM, best": ("fuxictr", "best"),
    "DeepCTR-Torch DeepFM, default": ("deepctr", "default"),
    "DeepCTR-Torch DeepFM, best": ("deepctr", "best"),
}
PEER_BATCHES = {10_000: 32, 100_000: 12, 1_000_000: 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="virtual environment of the peers; left out: they are not run")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "speed.jsonl"
    for rows in arguments.rows:
        prepare(folder, rows)
    for repeat in range(arguments.repeats):
        for rows in arguments.rows:
            for name, measure in measurements(folder, rows, arguments.peers).items():
                result = {"rows": rows, "name": name, "repeat": repeat, **measure()}
                with results.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)
    print(table([json.loads(line) for line in results.read_text().splitlines()]))


def data_path(folder: Path, rows: int) -> Path:
    return folder / f"drift-{rows}"


def prepare(folder: Path, rows: int) -> None:
    """Make the stream, and the first day as arrays for the peers."""
    path = data_path(folder, rows)
    if not (path / "dataset.json").exists():
        settings = ["num_days=2", "rows_per_day=400_000", f"rows_per_table={rows}"]
        command = [sys.executable, "-m", "raysparse", "prepare", "drift", "--output", str(path), *settings]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    arrays = path.with_suffix(".npz")
    if not arrays.exists():
        dataset = Dataset.open(str(path))
        batches = list(DayStream(dataset, StreamConfig(), 1).batches(dataset.days[0]))
        dense = np.concatenate([batch.dense[: batch.num_rows].numpy() for batch in batches])
        ids = np.concatenate([batch.ids.values().view(26, -1).T.numpy() for batch in batches])
        labels = np.concatenate([batch.labels[: batch.num_rows].numpy() for batch in batches])
        np.savez(arrays, dense=dense, ids=ids, labels=labels)


def measurements(folder: Path, rows: int, peers: str | None):
    named = {}
    for form, (workers, threads) in FORMS.items():
        if workers > 1 and rows != MAIN_ROWS:
            continue
        overrides = [
            f"data.path={data_path(folder, rows)}",
            "data.prepare=null",
            f"scaling.num_workers={workers}",
            f"scaling.threads_per_worker={threads}",
        ]
        named[f"raysparse train, {form}"] = lambda o=overrides: raysparse(folder, o)
        if rows != MAIN_ROWS:
            continue
        named[f"bare TorchRec, {form}"] = lambda o=overrides: output_of(
            [sys.executable, str(HERE / "bare_torchrec.py"), str(HERE / "speed.yaml"), *o]
        )
    if peers is not None:
        for name, (peer, optimizer) in PEERS.items():
            command = [f"{peers}/bin/python", str(HERE / "peers.py"), "--peer", peer, "--optimizer", optimizer]
            command += ["--rows", str(rows), "--batches", str(PEER_BATCHES[rows]), "--warmup", "2", "--threads", "2"]
            command += ["--data", str(data_path(folder, rows).with_suffix(".npz"))]
            named[name] = lambda c=command: output_of(c)
    return named


def raysparse(folder: Path, overrides: list[str]) -> dict[str, float]:
    """Run the job on its two days; the speed is that of the second, the first warms up as the bare loop does."""
    run = folder / "run"
    command = [sys.executable, "-m", "raysparse", "train", str(HERE / "speed.yaml"), "--fresh", f"run_folder={run}"]
    started = time.time()
    subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL)
    last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    summary = json.loads((run / "summary.json").read_text())
    return {
        "samples_per_s": last["samples_per_s"],
        "score_samples_per_s": last["score_samples_per_s"],
        "peak_gib": summary["peak_worker_gib"] * summary["num_workers"],
        "seconds_to_first_batch": summary["first_batch"] - started,
    }


def output_of(command: list[str]) -> dict[str, float]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    result = json.loads(done.stdout.decode().splitlines()[-1])
    return {key: result[key] for key in ("samples_per_s", "peak_gib")}


def table(results: list[dict]) -> str:
    lines = [f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", ""]
    lines.append("| rows a table | what | k samples/s | of bare | raysparse is x times | GiB | s to first batch |")
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for rows in sorted({result["rows"] for result in results}):
        median = medians([result for result in results if result["rows"] == rows])
        ours = median["raysparse train, 1 worker x 2 threads"]["samples_per_s"]
        for name, values in median.items():
            bare = median.get(name.replace("raysparse train", "bare TorchRec"), values)
            of_bare = f"{values['samples_per_s'] / bare['samples_per_s']:.2f}" if "raysparse" in name else ""
            times = f"{ours / values['samples_per_s']:.2f}" if name in PEERS else ""
            first = f"{values['seconds_to_first_batch']:.1f}" if "seconds_to_first_batch" in values else ""
            speed = f"{values['samples_per_s'] / 1e3:.1f}"
            cells = [f"{rows:,}", name, speed, of_bare, times, f"{values['peak_gib']:.1f}", first]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def medians(results: list[dict]) -> dict[str, dict[str, float]]:
    names = list(dict.fromkeys(result["name"] for result in results))
    found = {}
    for name in names:
        mine = [result for result in results if result["name"] == name]
        keys = [key for key, value in mine[0].items() if isinstance(value, float)]
        found[name] = {key: statistics.median(result[key] for result in mine) for key in keys}
    return found


if __name__ == "__main__":
    main()
