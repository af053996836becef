"""Brings events from rank 0 to the driver."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError

from raysparse.errors import RunEndedError
from raysparse.launch.cluster import reason_of, start_beside_driver

Event = dict[str, Any]

_POLL_S = 0.5


class _Relay:
    """The actor between them; it needs no CPU of the cluster."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._ended = False

    def tell(self, event: Event) -> bool:
        """Take an event; returns whether the run is to go on."""
        self._events.append(event)
        return not self._ended

    def end(self) -> None:
        self._ended = True

    def drain(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events


class EventRelay:
    """Calls `show` on the driver, in a thread, with each event that a worker tells.

    Where `show` raises RunEndedError, rank 0 raises it too the next time that it has something to tell. Where the actor
    between them dies, that is an event, the last one: the run goes on, and its folder has all but what was measured.
    """

    def __init__(self, show: Callable[[Event], None]) -> None:
        self.actor = start_beside_driver(_Relay)
        self._show = show
        self._closed = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._poll, name="event-relay", daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        try:
            try:
                while not self._closed.wait(_POLL_S):
                    self._drain()
                self._drain()
            except RayActorError as error:
                self._show({"event": "message", "text": _lost(error)})
        except BaseException as error:  # raised again in close()
            self._error = error
            if isinstance(error, RunEndedError):
                self.actor.end.remote()

    def _drain(self) -> None:
        for event in ray.get(self.actor.drain.remote()):
            self._show(event)

    def close(self) -> None:
        """Show what is left and stop; raises what showing an event raised."""
        self._closed.set()
        self._thread.join()
        ray.kill(self.actor)
        if self._error is not None:
            raise self._error


def _lost(error: RayActorError) -> str:
    reason = reason_of(error)
    return f"the actor that brings events from the workers died ({reason}); the run goes on and is not shown any more"
