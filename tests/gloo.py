"""Runs a function on several processes that talk over gloo."""

import logging
import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

# Ranks are forked from a server that has imported what they need, since TorchRec takes seconds to import.
multiprocessing.set_forkserver_preload(["tests.sharding.ranks", "tests.train.ranks"])


def run_ranks(world_size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(*arguments)` on `world_size` ranks; an exception on any of them is raised here."""
    parts = (world_size, free_port(), function, arguments)
    start_processes(_rank, parts, nprocs=world_size, start_method="forkserver")


def free_port() -> int:
    """A port of this machine that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank(rank: int, world_size: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    logging.disable(logging.WARNING)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()
