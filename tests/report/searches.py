"""Search folders as a search leaves them, made up: real choices, a real journal, plausible scores."""

import json
import math
from pathlib import Path
from random import Random
from typing import Any

from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.report.search_run import JOURNAL, RESULTS
from raysparse.search.ctr_space import CTRSpace, CTRSpaceConfig
from raysparse.search.finalists import pick_finalists
from raysparse.search.journal import Entry, Journal
from raysparse.search.population import Proposal
from raysparse.train.run_folder import JOB, SUMMARY

SCHEMA = Schema(
    dense=tuple(DenseFeature(name=f"i{place}") for place in range(13)),
    ids=tuple(IdFeature(name=f"c{place:02d}", rows=10_000) for place in range(26)),
)
JOB_TEXT = "kind: search\nname: clicks\nspace: {kind: ctr, menu: full, num_blocks: 7}\nsearcher: {kind: evolution}\n"
SUMMARY_TREE = {
    "name": "clicks",
    "status": "finished",
    "started": "2031-05-06T07:08:09+00:00",
    "finished": "2031-05-06T08:20:00+00:00",
    "seconds": 4311.0,
    "commit": "1234abc",
    "versions": {"torch": "2.13.0"},
    "num_trials": 300,
    "num_failed": 3,
    "trials_per_minute": 41.7,
    "phases": {"supernet": 912.4, "trials": 431.0, "finalists": 2961.0},
}
BASELINES = {"dlrm": 412_000, "deepfm": 655_000, "dcn": 798_000, "autoint": 1_230_000, "xdeepfm": 5_210_000}
TEACHER = (0.4395, 0.4371)


def space_of(menu: str = "full", num_blocks: int = 7) -> CTRSpace:
    return CTRSpace(CTRSpaceConfig.model_validate({"menu": menu, "num_blocks": num_blocks}), SCHEMA)


def write_journal(folder: Path, space: CTRSpace, num_trials: int, failing: tuple[int, ...] = ()) -> list[Entry]:
    """Larger networks score better by and by, some far worse than all others; so do children."""
    random, keys = Random(7), set[str]()
    with Journal.open(folder / JOURNAL, {"seed": 7}) as journal:
        for number in range(num_trials):
            choice = space.sample(random)
            while space.key(choice) in keys:
                choice = space.sample(random)
            keys.add(space.key(choice))
            generation = max(0, (number - num_trials // 2) // 8 + 1)
            proposal = Proposal(number, generation, space.key(choice), choice)
            macs = space.cost(choice).macs
            loss = 0.4605 - 0.0022 * math.log(macs / 1e5) - 0.0012 * (generation > 0) * generation**0.3
            loss += random.gauss(0, 0.0012) + random.expovariate(900) + 0.05 * (random.random() < 0.01)
            scores = {"log_loss": loss, **{name: float(n) for name, n in space.cost(choice).model_dump().items()}}
            journal.record(proposal, "RuntimeError: out of memory" if number in failing else scores, 1.4)
        return list(journal.entries)


def row(kind: str, name: str, validation: float | None, test: float | None, **given: Any) -> dict[str, Any]:
    line: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "rank": None,
        "trial": None,
        "key": None,
        "choice": None,
        "trial_log_loss": None,
        "macs": 100_000,
        "parameters": 50_000,
        "embedding_bytes": 16_640_000,
        "latency_us": 2_467.0,
        "learning_rate": 1e-3,
        "validation_log_loss": validation,
        "validation_auc": round(1.22 - (validation or 0.45), 4),
        "test_log_loss": test,
        "test_auc": round(1.215 - (test or 0.45), 4),
        "chosen": False,
    }
    line |= given
    runs: list[dict[str, Any]] = [{"learning_rate": rate, "seconds": 71.5} for rate in (1e-3, 3e-3)]
    for score in ("validation_log_loss", "validation_auc", "test_log_loss", "test_auc"):
        runs[0][score] = line[score]
        runs[1][score] = line[score] + 0.002 if line[score] else None
    return line | {"runs": runs}


def finalist(space: CTRSpace, choice: NASRecConfig, rank: int, score: float, **given: Any) -> dict[str, Any]:
    choice = space.canonical(choice)
    facts = {
        "rank": rank,
        "key": space.key(choice),
        "choice": choice.model_dump(mode="json"),
        "trial_log_loss": score,
        **space.cost(choice).model_dump(),
    }
    return row("finalist", str(rank), given.pop("validation", 0.45), given.pop("test", 0.448), **facts, **given)


def results_of(space: CTRSpace, entries: list[Entry], teacher: bool = True) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for rank, entry in enumerate(pick_finalists(entries, "log_loss", "score", 5), start=1):
        score = (entry.objectives or {})["log_loss"]
        validation = score - 0.0055 + 0.0011 * math.sin(3 * rank)
        scores = {"validation": validation, "test": validation - 0.0021, "trial": entry.number}
        rows.append(finalist(space, space.parse(entry.choice), rank, score, **scores))
    min(rows, key=lambda line: line["validation_log_loss"])["chosen"] = True
    for place, (name, macs) in enumerate(BASELINES.items()):
        loss = 0.4552 + 0.0013 * math.cos(2 * place)
        rows.append(row("baseline", name, loss, loss - 0.0019, macs=macs, parameters=macs + 1234))
    size = space.size()
    return {
        "validation_days": ["2030-01-11"],
        "test_days": ["2030-01-12"],
        "teacher": dict(
            zip(("validation_log_loss", "test_log_loss"), TEACHER if teacher else (None, None), strict=True)
        ),
        "rows": rows,
        "size": {name: getattr(size, name) for name in ("published", "sampled", "sampled_with_gates")},
    }


def write_search(folder: Path, num_trials: int = 60, teacher: bool = True, space: CTRSpace | None = None) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    space = space or space_of()
    entries = write_journal(folder, space, num_trials, failing=(4, 17, 33))
    (folder / RESULTS).write_text(json.dumps(results_of(space, entries, teacher)))
    (folder / SUMMARY).write_text(json.dumps(SUMMARY_TREE))
    (folder / JOB).write_text(JOB_TEXT)
    return str(folder)
