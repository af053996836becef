"""Connects to Ray: the cluster of a submitted job or of RAY_ADDRESS, or one started on this machine."""

import logging
import os

import ray


def connect(num_cpus: int) -> bool:
    """Connect to Ray where that has not happened; driver. Returns whether a local Ray was started.

    A local Ray offers at least `num_cpus` cores, so that a job never waits for cores that will not come.
    """
    if ray.is_initialized():
        return False
    for name in ("ray", "ray.train", "ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns of it otherwise
    # Ray Train looks every 2 s whether workers live and have reported; until it has looked, a second report waits.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
        return False
    ray.init("local", num_cpus=max(os.cpu_count() or 1, num_cpus), include_dashboard=False, **quiet)
    return True
