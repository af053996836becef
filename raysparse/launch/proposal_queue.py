"""Hands the proposals of a search to the actors that score them: an actor takes the next one when it is free."""

import time
from collections import deque
from typing import Any, NamedTuple, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from raysparse.errors import WorkerError
from raysparse.launch.cluster import reason_of, start_beside_driver

_SHORTEST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.1


class Handed(NamedTuple):
    """A proposal on its way."""

    number: int
    choice: str
    """As JSON."""


class _Answer(NamedTuple):
    handed: Handed | None
    ended: bool


class _Queue:
    """The actor between them; it needs no CPU of the cluster."""

    def __init__(self) -> None:
        self._waiting: deque[Handed] = deque()
        self._held: dict[str, int] = {}
        self._gone: set[str] = set()
        self._ended = False

    def put(self, handed: Handed) -> None:
        self._waiting.append(handed)

    def take(self, taker: str) -> _Answer:
        # What a taker asked for before it died may come in after its death was told.
        if self._ended or taker in self._gone:
            return _Answer(None, ended=True)
        self._held.pop(taker, None)
        if not self._waiting:
            return _Answer(None, ended=False)
        handed = self._waiting.popleft()
        self._held[taker] = handed.number
        return _Answer(handed, ended=False)

    def lose(self, taker: str) -> int | None:
        self._gone.add(taker)
        return self._held.pop(taker, None)

    def end(self) -> None:
        self._ended = True


class ProposalQueue:
    """The driver's end; WorkerError where the actor between driver and takers died."""

    def __init__(self) -> None:
        self.actor = start_beside_driver(_Queue)

    def put(self, number: int, choice: str) -> None:
        """Hand out a proposal to whoever is free first."""
        self.actor.put.remote(Handed(number, choice))

    def lose(self, taker: str) -> int | None:
        """Return the number of the proposal that a taker had when it died; None where it had none."""
        try:
            return cast(int | None, ray.get(self.actor.lose.remote(taker)))
        except RayActorError as error:
            raise WorkerError(
                f"the actor that hands out choices died ({reason_of(error)}); go on with --resume"
            ) from error

    def end(self) -> None:
        """Let all takers end."""
        self.actor.end.remote()

    def close(self) -> None:
        """Stop the actor."""
        ray.kill(self.actor)


def take(queue: ActorHandle[Any], taker: str) -> Handed | None:
    """Wait for the next proposal; None where no more will come. In the actors that score."""
    pause = _SHORTEST_PAUSE_S
    while True:
        answer = cast(_Answer, ray.get(queue.take.remote(taker)))
        if answer.handed is not None or answer.ended:
            return answer.handed
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
