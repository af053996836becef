"""Runs a function on several processes that talk over gloo."""

import logging
import multiprocessing
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

# Ranks are forked from a server that has imported what they need, since TorchRec takes seconds to import.
multiprocessing.set_forkserver_preload(["tests.sharding.ranks", "tests.train.ranks"])


def run_ranks(world_size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(*arguments)` on `world_size` ranks; an exception on any of them is raised here."""
    # They meet at a file: a port that was free when it was chosen may be taken by then.
    with TemporaryDirectory() as folder:
        parts = (world_size, f"{folder}/store", function, arguments)
        start_processes(_rank, parts, nprocs=world_size, start_method="forkserver")


def _rank(rank: int, world_size: int, store: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()
