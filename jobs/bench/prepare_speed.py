"""How fast raw Criteo lines become a prepared data set, end to end: read twice, checked, hashed, written as Parquet.

    python jobs/bench/prepare_speed.py SAMPLE... [--rows 2000000]

SAMPLE are files of Criteo lines (plain or .gz); they are repeated in a temporary file up to `--rows` rows.
"""

import argparse
import gzip
import logging
import tempfile
import time
from pathlib import Path

import ray

from raysparse.data.sources.criteo import CriteoKaggleConfig
from raysparse.launch.prepare import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--num-cpus", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, num_bytes = write_input(arguments.samples, Path(folder, "train.txt"), arguments.rows)
        started = time.perf_counter()
        ray.init(num_cpus=arguments.num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        start_s = time.perf_counter() - started
        config = CriteoKaggleConfig(input=folder)
        manifest = prepare(config, f"{folder}/prepared")
        total_s = time.perf_counter() - started
        if sum(day.rows for day in manifest.days) != rows:
            raise SystemExit(f"{rows} rows went in, {sum(day.rows for day in manifest.days)} came out")
    prepare_s = total_s - start_s
    print(f"{rows:,} rows, {num_bytes / 1e6:.0f} MB of text, {arguments.num_cpus} CPUs")
    print(f"prepare                {prepare_s:6.1f} s  {rows / prepare_s:10,.0f} rows/s")
    print(f"with the start of Ray  {total_s:6.1f} s  {rows / total_s:10,.0f} rows/s")


def write_input(samples: list[Path], path: Path, rows: int) -> tuple[int, int]:
    texts = [
        gzip.decompress(sample.read_bytes()) if sample.suffix == ".gz" else sample.read_bytes() for sample in samples
    ]
    lines = [line for text in texts for line in text.splitlines(keepends=True)]
    with path.open("wb") as file:
        for start in range(0, rows, len(lines)):
            file.writelines(lines[: rows - start])
        return rows, file.tell()


if __name__ == "__main__":
    main()
