"""The processes that Ray runs for this test session."""

import time

import psutil

OF_A_RUN = ("RayTrainWorker", "TrainController", "PlacementGroupCleaner")


def processes(*names: str) -> set[psutil.Process]:
    """Return those of our Ray whose command line has one of the names."""
    return {
        process
        for process in psutil.Process().children(recursive=True)
        if any(name in " ".join(_command(process)) for name in names)
    }


def left_behind(before: set[psutil.Process], timeout_s: float) -> set[psutil.Process]:
    """Return the processes of runs that are not gone in time, of those that were not there before."""
    deadline = time.monotonic() + timeout_s
    while (left := processes(*OF_A_RUN) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
