import time
from typing import Any

import pytest
import ray

from raysparse.errors import RunEndedError
from raysparse.launch import relay as relay_module
from raysparse.launch.relay import EventRelay


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "_POLL_S", 0.02)


@pytest.mark.ray
def test_events_come_in_their_order_and_the_driver_may_end_the_run(ray_cluster: None):
    seen: list[dict[str, Any]] = []
    relay = EventRelay(seen.append)
    assert all(ray.get([relay.actor.tell.remote({"event": str(number)}) for number in range(5)]))
    relay.close()
    assert [event["event"] for event in seen] == list("01234")

    def refuse(event: dict[str, Any]) -> None:
        raise RunEndedError("enough")

    relay = EventRelay(refuse)
    ray.get(relay.actor.tell.remote({"event": "day"}))
    while ray.get(relay.actor.tell.remote({"event": "day"})):
        time.sleep(0.01)
    with pytest.raises(RunEndedError, match="enough"):
        relay.close()


@pytest.mark.ray
def test_a_relay_that_dies_is_a_message_and_no_end_of_the_run(ray_cluster: None):
    seen: list[dict[str, Any]] = []
    relay = EventRelay(seen.append)
    ray.get(relay.actor.tell.remote({"event": "plan"}))
    while not seen:
        time.sleep(0.01)
    ray.kill(relay.actor)
    # A kill takes its time: the last events may still be read from an actor that is about to die.
    while len(seen) == 1:
        time.sleep(0.01)
    relay.close()
    assert [event["event"] for event in seen] == ["plan", "message"]
    assert seen[1]["text"].startswith("the actor that brings events from the workers died (")
    assert seen[1]["text"].endswith("); the run goes on and is not shown any more")


@pytest.mark.ray
def test_the_relay_is_on_the_drivers_machine(ray_cluster: None, monkeypatch: pytest.MonkeyPatch):
    options: list[Any] = []
    remote = ray.remote
    monkeypatch.setattr(ray, "remote", lambda **given: (options.append(given), remote(**given))[1])
    EventRelay(lambda event: None).close()
    strategy = options[0]["scheduling_strategy"]
    assert (strategy.node_id, strategy.soft) == (ray.get_runtime_context().get_node_id(), False)
