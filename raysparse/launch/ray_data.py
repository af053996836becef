"""Ray Data without its chatter."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.data
from ray.exceptions import RayTaskError

from raysparse.errors import RaySparseError
from raysparse.launch.cluster import connect


@contextmanager
def quiet_ray_data() -> Iterator[None]:
    """Use the running Ray, or one of this machine for as long as the block lasts (driver).

    Ray Data's own progress bars, lines and stack traces go to its log file only. An error of ours or of a file
    that a task raises is raised here as it is, without the wrapping that Ray gives it.
    """
    started = connect(num_cpus=1)
    context = ray.data.DataContext.get_current()
    progress_bars = context.enable_progress_bars
    context.enable_progress_bars = False
    consoles = [handler for handler in logging.getLogger("ray.data").handlers if _is_console(handler)]
    levels = [handler.level for handler in consoles]
    for handler in consoles:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, RaySparseError | OSError) else error from None
    finally:
        context.enable_progress_bars = progress_bars
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)
        if started:
            ray.shutdown()


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
