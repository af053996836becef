"""What runs on each rank: from the checked job to the training loop."""

import logging
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.train import CheckpointUploadMode

from raysparse.callbacks import Checkpointing, History, Progress, ReturnMemory, build_callback
from raysparse.data.dataset import Dataset
from raysparse.data.selection import select_days
from raysparse.errors import RunEndedError
from raysparse.job import check_train_job
from raysparse.launch.arms import ArmBuilder
from raysparse.launch.first_weights import take_first_weights
from raysparse.launch.task import stream_of, task_of
from raysparse.sharding.weights import ShardedWeights
from raysparse.train.arm import TRAINED
from raysparse.train.callback import Callback
from raysparse.train.checkpoint import CheckpointFolder, restore
from raysparse.train.loop import fit
from raysparse.train.run_folder import PLAN, RunFolder
from raysparse.train.state import TrainState

Tell = Callable[[dict[str, Any]], None]


def train_worker(arguments: dict[str, Any]) -> None:
    """Train one rank's share of a job; every rank, within Ray Train.

    `arguments`: `job` (the resolved job as a tree), `relay` (the actor that takes events for the driver) and `owner`
    (who the run folder belongs to).
    """
    _quieten()
    job = check_train_job(arguments["job"], "the job")
    torch.set_num_threads(job.scaling.threads_per_worker)
    torch.set_float32_matmul_precision(job.scaling.matmul_precision)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    tell = _teller(arguments["relay"], rank)
    dataset = Dataset.open(job.data.path)
    device = torch.device("cuda", torch.cuda.current_device()) if job.scaling.use_gpu else torch.device("cpu")
    builder = ArmBuilder(job, dataset, device, context.get_local_world_size())
    folder = RunFolder(job.run_folder, arguments["owner"])
    if rank == 0:
        folder.write(PLAN, "[" + ",\n".join(table.model_dump_json() for table in builder.planned) + "]\n")
        tell({"event": "facts", "facts": builder.cost.model_dump()})
        tell({"event": "plan", "tables": [table.model_dump() for table in builder.planned]})
    state = TrainState(
        days=select_days(dataset, job.data.first_day, job.data.last_day, job.data.epochs),
        stream=stream_of(job, dataset, rank, world_size),
        arms=[builder(TRAINED, trains=True)],
        make_arm=builder,
        task=task_of(job, dataset, device),
        seed=job.seed,
        device=device,
    )
    checkpoints = CheckpointFolder(folder)
    callbacks: list[Callback] = [
        build_callback(config, job.seed, job.model, dataset.schema) for config in job.callbacks
    ]
    callbacks += [History(folder), Progress(tell), ReturnMemory()]
    callbacks.append(Checkpointing(checkpoints, job.checkpoint, callbacks, _register_checkpoint))
    name = checkpoints.latest(lambda text: tell({"event": "message", "text": text}))
    if name is not None:
        restore(checkpoints, name, state, callbacks)
        tell({"event": "message", "text": f"goes on from checkpoint {name} ({_place(state)})"})
    elif job.start_from is not None:
        model = state.arms[0].model
        assert isinstance(model, ShardedWeights)
        take_first_weights(job, dataset.schema, model)
    fit(state, callbacks, job.optimizer.schedule, job.warm_up_days)
    if rank == 0:
        costs = {arm.name: builder.measure(arm).model_dump() for arm in state.arms if not arm.facts.get("shadow")}
        tell({"event": "facts", "facts": {"heads": costs}})


def _register_checkpoint(url: str, state: TrainState) -> None:
    # The files are in their place already; Ray learns of them, and every rank passes its barrier.
    checkpoint = ray.train.Checkpoint(url)
    ray.train.report(
        {"num_steps": state.position.num_steps},
        checkpoint=checkpoint,
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
    )


def _place(state: TrainState) -> str:
    if state.position.day_index >= len(state.days):
        return "all days are done"
    return f"day {state.day.day}, batch {state.position.batch}"


def _teller(relay: ActorHandle, rank: int) -> Tell:
    return _Teller(relay) if rank == 0 else lambda event: None


class _Teller:
    """Takes events to the driver and does not wait for it; learns with the next event whether to go on."""

    def __init__(self, relay: ActorHandle) -> None:
        self._relay = relay
        self._last: ray.ObjectRef | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        if self._last is not None and not _goes_on(self._last):
            raise RunEndedError("the driver has ended this run")
        # Ray adds an actor's methods to its handle at run time.
        self._last = self._relay.tell.remote(event)  # type: ignore[reportAttributeAccessIssue]


def _goes_on(answer: ray.ObjectRef) -> bool:
    ready, _ = ray.wait([answer], timeout=0)
    try:
        return not ready or bool(ray.get(ready[0]))
    except RayActorError:
        return True  # nobody looks on any more, which is no reason to end


def _quieten() -> None:
    for name in ("torchrec", "fbgemm_gpu", "torch.distributed", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
