from typing import Any

import pytest
import ray

from raysparse.launch.cluster import shortage_for_trials

MACHINES: list[dict[str, Any]] = [
    {"Alive": True, "Resources": {"CPU": 8.0, "memory": 1e9}},
    {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    {"Alive": True, "Resources": {}},
]


@pytest.mark.parametrize("resources", [(8, 0), (2, 0.5), (2, 1), (1, 0)])
def test_an_actor_that_fits_one_machine_lacks_nothing(resources: tuple[float, float], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "nodes", lambda: MACHINES)
    assert shortage_for_trials(*resources) is None


@pytest.mark.parametrize("resources", [(9, 0), (4, 0.5), (1, 2)])
def test_what_the_machines_have_only_together_is_short(resources: tuple[float, float], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "nodes", lambda: MACHINES)
    text = shortage_for_trials(*resources)
    assert text == (
        f"an actor of the trials asks for {resources[0]:g} cores and {resources[1]:g} GPUs of one machine, the cluster "
        "has machines of 0 cores and 0 GPUs or 2 cores and 1 GPUs or 8 cores and 0 GPUs: trials will wait for others "
        "to join (else lower trials.threads_per_actor or trials.gpus_per_actor)"
    )
