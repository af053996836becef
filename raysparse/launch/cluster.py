"""Connects to Ray: the cluster of a submitted job or of RAY_ADDRESS, or one started on this machine."""

import logging
import os
from typing import Any

import ray
from ray._raylet import PlacementGroupID
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def connect(num_cpus: int) -> bool:
    """Connect to Ray where that has not happened; driver. Returns whether a local Ray was started.

    A local Ray offers at least `num_cpus` cores, so that a job never waits for cores that will not come.
    """
    if ray.is_initialized():
        return False
    for name in ("ray", "ray.train", "ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if "RAY_ADDRESS" in os.environ:
        _poll_often()
        ray.init(**_QUIET)
        return False
    start_local(max(os.cpu_count() or 1, num_cpus))
    return True


def start_local(num_cpus: int) -> None:
    """Start a Ray of this process's own that offers so many cores, and connect to it."""
    _poll_often()
    # Ray lowers its workers' priority below its own processes': a tenth of the speed on a small machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A machine that is nobody's to take away needs no actor that asks for it.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    ray.init("local", num_cpus=num_cpus, include_dashboard=False, **_QUIET)


def _poll_often() -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns of it otherwise
    # Ray Train looks every 2 s whether workers live and have reported; until it has looked, a second report waits.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")


def free_reservations() -> None:
    """Give back what this driver has reserved on the cluster and not used; driver, while no run of it goes on.

    Ray Train leaves its reservation behind where a worker dies while the group is being started; the next
    group would wait for those cores for ever.
    """
    job = ray.get_runtime_context().get_job_id()
    for name, group in placement_group_table().items():
        # An id ends with that of the job that made it.
        if name.endswith(job) and group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def shortage(cpus: float, gpus: float) -> str | None:
    """What the cluster lacks of the given cores and GPUs, or None; driver."""
    has = ray.cluster_resources()
    if has.get("CPU", 0.0) >= cpus and has.get("GPU", 0.0) >= gpus:
        return None
    return (
        f"the job asks for {cpus:g} cores and {gpus:g} GPUs, the cluster has {has.get('CPU', 0.0):g} and "
        f"{has.get('GPU', 0.0):g}: waiting for machines to join (else lower scaling.num_workers or "
        "scaling.threads_per_worker)"
    )


def shortage_for_trials(cpus: float, gpus: float) -> str | None:
    """What all machines of the cluster lack of the cores and GPUs of one actor that scores choices, or None; driver."""
    machines = {
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in ray.nodes() if node["Alive"]
    }
    if any(has_cpus >= cpus and has_gpus >= gpus for has_cpus, has_gpus in machines):
        return None
    found = " or ".join(f"{has_cpus:g} cores and {has_gpus:g} GPUs" for has_cpus, has_gpus in sorted(machines))
    return (
        f"an actor of the trials asks for {cpus:g} cores and {gpus:g} GPUs of one machine, the cluster has machines of "
        f"{found}: trials will wait for others to join (else lower trials.threads_per_actor or trials.gpus_per_actor)"
    )


def start_beside_driver(kind: type) -> ActorHandle[Any]:
    """Start an actor on the driver's machine that needs no CPU of the cluster: no other machine's end is its own."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(kind).remote()  # pyright: ignore


def reason_of(error: RayActorError) -> str:
    """Return in a line why an actor died."""
    return str(error).partition("\n")[0].rstrip(".")
