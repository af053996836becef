"""A Ray task an item, with errors of ours as they are."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray.data

from raysparse.errors import RaySparseError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_tasks(function: Callable[[Item], Result], items: list[Item]) -> Iterator[Result]:
    """Run `function` on every item, a Ray task each; results in the order they are ready.

    An error of ours or of a file comes back as a value: what `map` raises reaches the driver without its cause.
    """

    def call(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": pickle.dumps(function(pickle.loads(row["item"])))}
        except (RaySparseError, OSError) as error:
            return {"result": pickle.dumps(error)}

    for row in task_items(items).map(call).iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, RaySparseError | OSError):
            raise result
        yield result


def task_items(items: list[Any]) -> "ray.data.Dataset":
    """Return a data set of the pickled items, a block each."""
    return ray.data.from_items([{"item": pickle.dumps(item)} for item in items], override_num_blocks=len(items))
