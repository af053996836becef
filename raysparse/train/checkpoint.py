"""Checkpoints: tensors and JSON in a folder that counts only once its manifest stands there.

checkpoints/step-000001234/rank-00000.safetensors ...   tensors, by rank; large ones in several files
                           tensors.json                 which box of which tensor lies where
                           state.json                   position, scores of the day, callbacks
                           manifest.json                names and sizes of all files, written last

Where a step is saved again, as after a day's last one, it is step-000001234-001: the first stays until that is whole.
"""

import dataclasses
import json
import posixpath
from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist

from raysparse.errors import CheckpointError
from raysparse.train.callback import Callback
from raysparse.train.run_folder import CHECKPOINTS, RunFolder
from raysparse.train.state import Position, TrainState
from raysparse.train.tensor_store import TensorStore, save_tensors

MANIFEST = "manifest.json"
STATE = "state.json"
FORMAT_VERSION = 1


class CheckpointFolder:
    """The checkpoints of a run. Every rank; rank 0 alone writes and removes what is not a tensor."""

    def __init__(self, folder: RunFolder) -> None:
        self.url = folder.url(CHECKPOINTS)
        self._folder = folder
        self._filesystem = folder.filesystem
        self._root = posixpath.join(folder.root, CHECKPOINTS)

    def steps(self) -> list[str]:
        """Names of the checkpoints, newest first, whole or not."""
        if not self._filesystem.exists(self._root):
            return []
        names = (posixpath.basename(path.rstrip("/")) for path in self._filesystem.ls(self._root, detail=False))
        return sorted((name for name in names if name.startswith("step-")), reverse=True)

    def fault(self, name: str) -> str | None:
        """Why a checkpoint is not whole, or None where it is."""
        root = posixpath.join(self._root, name)
        try:
            manifest = json.loads(self._filesystem.cat_file(posixpath.join(root, MANIFEST)))
            if manifest["format_version"] != FORMAT_VERSION:
                return f"format version {manifest['format_version']}, this version reads {FORMAT_VERSION}"
            for file, size in manifest["files"].items():
                path = posixpath.join(root, file)
                if not self._filesystem.exists(path):
                    return f"{file} is missing"
                if self._filesystem.size(path) != size:
                    return f"{file} has {self._filesystem.size(path)} bytes instead of {size}"
        except FileNotFoundError:
            return "it has no manifest: the save was not finished"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"its manifest is damaged ({error!r})"
        return None

    def latest(self, warn: Callable[[str], None]) -> str | None:
        """Name of the newest whole checkpoint, refusing the others by name; None where there is none."""
        refused: list[str] = []
        for name in self.steps():
            fault = self.fault(name)
            if fault is None:
                return name
            refused.append(name)
            warn(f"checkpoint {posixpath.join(self.url, name)} is refused: {fault}; going on with the one before it")
        if refused:
            warn("no whole checkpoint is left: the run starts from its first day")
        return None

    def name_of(self, num_steps: int) -> str:
        """Name for a checkpoint after so many steps that no whole one has, and sorts after it. Rank 0.

        The rest of one that was not finished under this name is removed.
        """
        first = f"step-{num_steps:09d}"
        same = [name for name in self.steps() if name == first or name.startswith(f"{first}-")]
        newest = next((name for name in same if self.fault(name) is None), None)
        count = 0 if newest is None else 1 + int(newest.removeprefix(first).removeprefix("-") or 0)
        name = f"{first}-{count:03d}" if count else first
        if name in same:
            self.remove(name)
        return name

    def finish(self, name: str, state: dict[str, Any]) -> None:
        """Write the state and, last, the manifest. Rank 0, after every rank's tensors are there."""
        self._folder.require_ownership()
        root = posixpath.join(self._root, name)
        self._filesystem.pipe_file(posixpath.join(root, STATE), json.dumps(state).encode())
        files = {posixpath.basename(path): self._filesystem.size(path) for path in self._filesystem.ls(root, False)}
        manifest = {"format_version": FORMAT_VERSION, "files": files}
        path = posixpath.join(root, MANIFEST)
        self._filesystem.pipe_file(path + ".partial", json.dumps(manifest).encode())
        self._filesystem.mv(path + ".partial", path)

    def remove(self, name: str) -> None:
        """Remove a checkpoint, its manifest first, so that a rest is never taken for a whole one. Rank 0."""
        self._folder.require_ownership()
        root = posixpath.join(self._root, name)
        manifest = posixpath.join(root, MANIFEST)
        if self._filesystem.exists(manifest):
            self._filesystem.rm(manifest)
        self._filesystem.rm(root, recursive=True)

    def keep(self, count: int) -> None:
        """Remove all but the newest `count` whole checkpoints. Rank 0."""
        whole = 0
        for name in self.steps():
            good = self.fault(name) is None
            whole += good
            if not good or whole > count:
                self.remove(name)

    def state(self, name: str) -> dict[str, Any]:
        """What `finish` was given."""
        return json.loads(self._filesystem.cat_file(posixpath.join(self._root, name, STATE)))


def save(folder: CheckpointFolder, state: TrainState, callbacks: Sequence[Callback]) -> str:
    """Save a run; all ranks together. Returns the checkpoint's path, whole when this returns on rank 0."""
    shared = [folder.name_of(state.position.num_steps) if state.is_rank_0 else ""]
    dist.broadcast_object_list(shared)
    (name,) = shared
    tensors = {f"{arm.name}/{key}": tensor for arm in state.arms for key, tensor in arm.model.state().items()}
    url = posixpath.join(folder.url, name)
    save_tensors(url, tensors)
    if state.is_rank_0:
        folder.finish(
            name,
            {
                "position": dataclasses.asdict(state.position),
                "records": state.records,
                "train_seconds": state.train_seconds,
                "day": state.day.day if state.position.day_index < len(state.days) else None,
                "arms": [
                    {"name": arm.name, "trains": arm.trains, "column_bounds": dict(arm.model.column_bounds)}
                    for arm in state.arms
                ],
                "callbacks": {
                    callback.state_key: callback.state_dict() for callback in callbacks if callback.state_key
                },
            },
        )
    dist.barrier()
    return url


def restore(folder: CheckpointFolder, name: str, state: TrainState, callbacks: Sequence[Callback]) -> None:
    """Bring a freshly built run to a checkpoint; all ranks together, any number of them and any plan.

    Raises CheckpointError where the checkpoint does not belong to the job's model or days.
    """
    saved = folder.state(name)
    position = Position(**saved["position"])
    _check_day(folder, name, saved["day"], position, state)
    state.position = position
    state.records = saved["records"]
    state.train_seconds = saved["train_seconds"]
    # Callbacks first: they build the arms whose shape only they know.
    for callback in callbacks:
        if callback.state_key in saved["callbacks"]:
            callback.load_state_dict(saved["callbacks"][callback.state_key], state)
    store = TensorStore(posixpath.join(folder.url, name))
    order = {saved_arm["name"]: number for number, saved_arm in enumerate(saved["arms"])}
    for saved_arm in saved["arms"]:
        arm = state.arm(saved_arm["name"])
        if arm is None:
            arm = state.make_arm(saved_arm["name"], trains=saved_arm["trains"])
            state.arms.append(arm)
        prefix = f"{arm.name}/"
        bounds = {table: tuple(bound) for table, bound in saved_arm["column_bounds"].items()}
        arm.model.load(
            lambda tensors, prefix=prefix: store.read({prefix + key: tensor for key, tensor in tensors.items()}),
            lambda key, prefix=prefix: store.shapes(prefix + key),
            bounds,
        )
    state.arms.sort(key=lambda arm: order[arm.name])


def _check_day(
    folder: CheckpointFolder, name: str, saved_day: str | None, position: Position, state: TrainState
) -> None:
    days, url = state.days, posixpath.join(folder.url, name)
    if position.day_index + (saved_day is not None) > len(days):
        raise CheckpointError(
            f"{url} has learned {position.day_index} days, and the job ends after {len(days)}: data.last_day may be "
            "later than that of the run, and not earlier. Put it back, or use --fresh"
        )
    if saved_day is not None and days[position.day_index].day != saved_day:
        raise CheckpointError(
            f"{url} stands at day {saved_day}, number {position.day_index} of its run; in this job's data that is day "
            f"{days[position.day_index].day}. Resume with the run's own data and data.first_day, or use --fresh"
        )
