"""Speed of the day stream alone: Parquet on disk to batches with a KeyedJaggedTensor, on one core.

python jobs/bench/read_speed.py DATASET [--batch-size 4096] [--repeats 5]
"""

import argparse
import statistics
import time

import torch

from raysparse.data.dataset import Dataset
from raysparse.data.stream import DayStream, StreamConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Dataset.open(arguments.dataset)
    stream = DayStream(dataset, StreamConfig(batch_size=arguments.batch_size), seed=1)
    rates: list[float] = []
    for _ in range(arguments.repeats + 1):
        # CPU time of the process: the reading thread works beside this one.
        started = time.process_time()
        rows = sum(batch.num_rows for day in dataset.days for batch in stream.batches(day))
        rates.append(rows / (time.process_time() - started))
    print(f"{statistics.median(rates[1:]) / 1e3:,.0f} k rows per second of one core, median of {arguments.repeats}")


if __name__ == "__main__":
    main()
