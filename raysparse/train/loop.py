"""The training loop: each day is predicted before it is learned."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from raysparse.train.callback import Callback
from raysparse.train.schedule import ScheduleConfig, learning_rate_factor
from raysparse.train.state import TrainState
from raysparse.train.step_watch import StepWatch


def fit(state: TrainState, callbacks: Sequence[Callback], schedule: ScheduleConfig, warm_up_days: int) -> None:
    """Score and train the days from `state.position` on; all ranks together.

    Raises NonFiniteLossError and DataError, on every rank or, where one rank alone cannot read, on that one.
    """
    if schedule.decay_steps is None:
        schedule = schedule.over(sum(state.stream.num_batches(day) for day in state.days))
    for callback in callbacks:
        callback.fit_start(state)
    while state.position.day_index < len(state.days):
        if not state.records:
            for callback in callbacks:
                callback.day_start(state)
            state.records = _score_day(state, callbacks, warm_up_days)
            for callback in callbacks:
                callback.scored(state)
        if not state.stopped:
            _train_day(state, callbacks, schedule)
        _close_day(state)
        for callback in callbacks:
            callback.day_end(state)
        state.records = []
    for callback in callbacks:
        callback.fit_end(state)


def _score_day(state: TrainState, callbacks: Sequence[Callback], warm_up_days: int) -> list[dict[str, Any]]:
    started = time.perf_counter()
    arms = [arm for arm in state.arms if not arm.rests]
    metrics = {arm.name: state.task.metrics() for arm in arms}
    watch = StepWatch()
    rows_done = 0
    with torch.no_grad():
        for batch in state.stream.scored_batches(state.day):
            batch = batch.to(state.device)
            state.row_weights = batch.weights
            state.row_losses = {arm.name: metrics[arm.name].update(arm, batch) for arm in arms}
            watch.check()
            losses = {name: row_losses.sum() for name, row_losses in state.row_losses.items()}
            watch.send(losses, state.day.day, batch.index, save_requested=False)
            rows_done += batch.num_rows
            for callback in callbacks:
                callback.score_batch_end(state, rows_done)
    watch.check()
    computed = {name: day_metrics.compute() for name, day_metrics in metrics.items()}
    seconds = time.perf_counter() - started
    return [
        {
            "day": state.day.day,
            "arm": arm.name,
            **computed[arm.name],
            "best_ne": state.day.best_ne,
            "warm_up": state.position.day_index < warm_up_days,
            "macs": arm.macs,
            **arm.facts,
            "score_samples_per_s": rows_done / seconds,
        }
        for arm in arms
    ]


def _train_day(state: TrainState, callbacks: Sequence[Callback], schedule: ScheduleConfig) -> None:
    watch = StepWatch()
    position = state.position
    started = time.perf_counter()
    for batch in state.stream.batches(state.day, position.batch):
        state.batch = batch.to(state.device)
        _train_step(state, watch, learning_rate_factor(schedule, position.num_steps))
        if state.save_agreed:
            watch.check()  # nothing that is not finite is saved
        position.batch = batch.index + 1
        now = time.perf_counter()
        state.train_seconds += now - started
        for callback in callbacks:
            callback.step_end(state)
        # What callbacks do, saving above all, is not the price of a step.
        started = time.perf_counter()
    watch.check()
    state.train_seconds += time.perf_counter() - started


def _train_step(state: TrainState, watch: StepWatch, factor: float) -> None:
    batch = state.batch
    assert batch is not None
    position = state.position
    # Whatever a model draws follows from (seed, step, rank): there is no random state to save.
    torch.manual_seed(hash((state.seed, position.num_steps, state.stream.rank)) & 0x7FFFFFFF)
    trained = [arm for arm in state.arms if arm.trains and not arm.rests]
    for arm in trained:
        arm.model.begin_step(factor, position.num_steps)
    losses = {arm.name: state.task.loss_sum(arm, batch, position.num_steps) for arm in trained}
    state.step_losses = {name: loss.detach() for name, loss in losses.items()}
    state.save_agreed = watch.check()
    watch.send(losses, state.day.day, batch.index, save_requested=state.save_requested)
    position.num_steps += 1
    # The mean over ranks of these is the mean over the rows of all ranks.
    scale = state.stream.world_size / batch.num_rows
    for arm in trained:
        arm.model.step(losses[arm.name] * scale, position.num_steps)


def _close_day(state: TrainState) -> None:
    rows = 0 if state.stopped else state.day.rows
    for record in state.records:
        record["trained_rows"] = rows
        record["samples_per_s"] = rows / state.train_seconds if rows and state.train_seconds else None
        record["train_seconds"] = state.train_seconds
    state.train_seconds = 0.0
    last = len(state.days) - 1
    state.position.day_index = max(state.position.day_index + 1, last if state.stopped else 0)
    state.position.batch = 0
    state.stopped = False
