from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import settings

# A busy machine is no failure; pytest's own time-out ends what hangs.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests (pytest -n), those of a file that need Ray stay together, on the cluster
    of their process: they wait for each other's processes to end."""
    for item in items:
        if item.get_closest_marker("ray") is not None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Two CPUs for all tests that need Ray; a Ray that runs on this machine already is left alone."""
    import ray  # 1 s, which tests without Ray should not pay

    from raysparse.launch.cluster import start_local

    start_local(2)
    yield
    ray.shutdown()
