import os
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from tests.gloo import free_port


@pytest.fixture
def one_rank() -> Iterator[None]:
    """A process group of this process alone."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    torch.set_num_threads(threads)
