"""Where Ray Train enters a worker. Ray's controller imports this module, too: it must stay light."""

from typing import Any


def enter_worker(arguments: dict[str, Any]) -> None:
    """Train one rank's share of a job; see `worker.train_worker`. Every rank, within Ray Train."""
    # TorchRec takes 2 s to import, which the controller, starting before the workers, would add to theirs.
    from raysparse.launch.worker import train_worker

    train_worker(arguments)
