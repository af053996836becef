"""Runs of small supernets, and what their ranks note."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.supernet import NASRecSupernet
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState
from tests.train.ranks import job_of, run_job

SPACE = CTRSpaceConfig(num_blocks=3, dense_widths=(4, 8), token_counts=(4, 8), embedding_dim=8)
MODEL: dict[str, Any] = {"kind": "nasrec_supernet", "space": SPACE.model_dump(mode="json")}


def supernet_changes(*callbacks: dict[str, Any], **sampling: Any) -> dict[str, Any]:
    """What makes the loop's test job one of a supernet."""
    return {
        "model": MODEL,
        "callbacks": [{"kind": "path_sampling", **sampling}, *callbacks],
        "optimizer": {
            "sparse": {"kind": "rowwise_adagrad", "learning_rate": 0.1},
            "dense": {"kind": "adagrad", "learning_rate": 0.05, "eps": 1e-2, "clip_norm": 5.0},
        },
    }


def head_of(state: TrainState) -> NASRecSupernet:
    head = state.arms[0].model.head
    assert isinstance(head, NASRecSupernet)
    return head


class NotePaths(Callback):
    """Writes which choices the days were scored with, and which one each step trained."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.trained: list[str] = []
        self.scored_with: set[str] = set()

    def fit_start(self, state: TrainState) -> None:
        head_of(state).register_forward_pre_hook(self._note)

    def _note(self, head: nn.Module, inputs: Any) -> None:
        assert isinstance(head, NASRecSupernet)
        choice = inputs[2] if len(inputs) > 2 else head.choices[0]
        text = choice.model_dump_json()
        if torch.is_grad_enabled():
            self.trained.append(text)
        else:
            self.scored_with.add(text)

    def fit_end(self, state: TrainState) -> None:
        assert len(self.scored_with) == 1
        notes = {"trained": self.trained, "scored_with": list(self.scored_with)}
        self._path.with_name(f"{self._path.name}-{state.stream.rank}.json").write_text(json.dumps(notes))


def run_noted(data: str, folder: str, changes: dict[str, Any]) -> None:
    """Run a job, and write each rank's paths beside its run folder."""
    run_job(job_of(data, folder, **changes), [NotePaths(Path(folder))])
    dist.barrier()


def read_notes(folder: Path, rank: int = 0) -> tuple[list[NASRecConfig], NASRecConfig]:
    """The choice of each step, and the one that days were scored with."""
    notes = json.loads(folder.with_name(f"{folder.name}-{rank}.json").read_text())
    trained = [NASRecConfig.model_validate_json(text) for text in notes["trained"]]
    return trained, NASRecConfig.model_validate_json(notes["scored_with"][0])
