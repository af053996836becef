"""The loop that raysparse is measured against: TorchRec alone, batches in memory, no Ray, no scoring, no metrics.

Prints a line of JSON. Same model and plan as the job; TorchRec's DistributedModelParallel with its own DDP.
"""

import argparse
import json
import logging
import os
import resource
import socket
import time
from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ModuleSharder, ShardingEnv
from torchrec.optim.optimizers import in_backward_optimizer_filter

from raysparse.data.dataset import Dataset
from raysparse.data.stream import DayStream
from raysparse.job import TrainJob, load_train_job
from raysparse.models import build_model
from raysparse.sharding.optimizer import fused_parameters
from raysparse.sharding.plan import TableSharder, agree_topology, make_plan

WARM_UP_STEPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--steps", type=int, default=96)
    arguments, overrides = parser.parse_known_args()
    job = load_train_job(arguments.job, tuple(overrides))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parts = (job, arguments.steps, port)
    if job.scaling.num_workers == 1:
        run(0, *parts)
    else:
        spawn(run, parts, nprocs=job.scaling.num_workers)


def run(rank: int, job: TrainJob, steps: int, port: int) -> None:
    logging.disable(logging.WARNING)
    world_size = job.scaling.num_workers
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(job.scaling.threads_per_worker)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    device = torch.device("cpu")
    dataset = Dataset.open(job.data.path)
    batches = list(DayStream(dataset, job.data, job.seed, rank, world_size).batches(dataset.days[0]))
    model = build_model(job.model, dataset.schema, job.seed)
    sharder = TableSharder(fused_params=fused_parameters(job.optimizer.sparse))
    plan = make_plan(model, sharder, job.sharding, agree_topology(world_size, device, job.sharding))
    sharders = [cast("ModuleSharder[nn.Module]", sharder)]
    group = dist.group.WORLD
    assert group is not None
    parallel = DistributedModelParallel(
        model, env=ShardingEnv.from_process_group(group), device=device, plan=plan, sharders=sharders
    )
    dense = [parameter for _, parameter in in_backward_optimizer_filter(parallel.named_parameters())]
    optimizer = torch.optim.AdamW(dense, lr=job.optimizer.dense.learning_rate, weight_decay=0.0, fused=True)
    loss_of = nn.BCEWithLogitsLoss()
    started = 0.0
    rows = 0
    for step in range(WARM_UP_STEPS + steps):
        if step == WARM_UP_STEPS:
            dist.barrier()
            started = time.perf_counter()
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        loss_of(parallel(batch.dense, batch.ids), batch.labels).backward()
        optimizer.step()
        rows += batch.num_rows if step >= WARM_UP_STEPS else 0
    seconds = time.perf_counter() - started
    if rank == 0:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 * world_size
        print(json.dumps({"samples_per_s": rows / seconds, "peak_gib": peak}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
