"""A search as read from its folder: any file may be missing, since a page is made during a search as well."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysparse.config import check, parse_yaml
from raysparse.errors import ConfigError, DataError
from raysparse.models.nasrec.canonical import canonical
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.report.run import History, read_json, read_run, read_text
from raysparse.search.journal import Entry, read_journal
from raysparse.search.quality import CLICKS, NEXT_ITEMS, QUALITIES, Quality
from raysparse.train.run_folder import HISTORY, JOB, SUMMARY, RunFolder

JOURNAL = "journal.jsonl"
RESULTS = "results.json"
SUPERNET = "supernet"
"""Folder of the supernet's run."""

NUMBERS = (
    "learning_rate",
    "macs",
    "parameters",
    "embedding_bytes",
    "latency_us",
    "seconds",
)
"""Read as they are called."""

SCORES = ("trial", "validation", "validation_second", "test", "test_second")
"""Values of the metric by which the search judges, and of the one beside it."""


@dataclass(frozen=True)
class Contender:
    """A finalist or a baseline with what it came to, or one run of it."""

    kind: str
    """finalist or baseline."""
    name: str
    """A finalist's number, in the order in which the search picked them, or the kind of a baseline."""
    numbers: Mapping[str, float | None]
    """Value of each of `NUMBERS` and `SCORES`; None where there is none."""
    chosen: bool
    trial: int | None
    choice: NASRecConfig | None
    """One of NASRec's, in canonical form, which can be drawn; None for another network, and for a baseline."""
    key: str
    """The choice in one line; empty for a baseline."""
    runs: "tuple[Contender, ...]" = ()
    """One for each learning rate."""

    @property
    def is_finalist(self) -> bool:
        """Whether it came out of the search."""
        return self.kind == "finalist"

    @property
    def label(self) -> str:
        """What it is called: `finalist 1`, `deepfm`."""
        return f"finalist {self.name}" if self.is_finalist else self.name


@dataclass(frozen=True)
class Results:
    """What finalists and baselines came to, trained alone; empty where none has been yet."""

    contenders: tuple[Contender, ...] = ()
    teacher: tuple[float | None, float | None] = (None, None)
    """The generating teacher's log loss on the validation and on the test days."""
    quality: Quality = CLICKS
    """What the scores are."""
    days: tuple[str, str] = ("", "")
    """Validation and test days, as text."""
    size: Mapping[str, int] | None = None
    """Of the space, counted in several ways."""
    without_score: tuple[str, ...] = ()
    """Sentences about the finalists and baselines of which no run has finished."""

    @property
    def finalists(self) -> list[Contender]:
        """Those from the search, in the order of their numbers."""
        return [contender for contender in self.contenders if contender.is_finalist]

    @property
    def baselines(self) -> list[Contender]:
        """Those made by hand."""
        return [contender for contender in self.contenders if not contender.is_finalist]

    @property
    def chosen(self) -> Contender | None:
        """The finalist that is best on validation."""
        return next((contender for contender in self.contenders if contender.chosen), None)

    @property
    def best_baseline(self) -> Contender | None:
        """The baseline that is best on validation: the test chooses nothing."""
        scores = [(contender.numbers["validation"], contender) for contender in self.baselines]
        known = [(self.quality.loss_of(score), contender) for score, contender in scores if score is not None]
        return min(known, key=lambda pair: pair[0])[1] if known else None


@dataclass(frozen=True)
class SearchRun:
    """What a search left in its folder."""

    entries: list[Entry]
    """In the order in which results arrived."""
    results: Results
    summary: Mapping[str, Any]
    supernet: History | None
    job: str
    """The resolved job as YAML; empty where the search left none."""
    job_tree: Mapping[str, Any]
    missing: list[str]
    """A sentence for each file that is not there or cannot be read."""


def is_search(run_folder: str) -> bool:
    """Whether a folder is that of a search; any process."""
    folder = RunFolder(run_folder)
    return folder.exists(JOB) and _job_tree(folder.read(JOB), folder.url(JOB)).get("kind") == "search"


def read_search(folder: RunFolder) -> SearchRun:
    """Read a search's folder, in any process.

    Raises CheckpointError, naming the line, where the journal is damaged, and DataError where results or the
    supernet's history are.
    """
    missing: list[str] = []
    job = read_text(folder, JOB)
    if job is None:
        missing.append(f"{JOB} is missing: the job is left out.")
    entries: list[Entry] = []
    if folder.exists(JOURNAL):
        _, entries = read_journal(Path(folder.root) / JOURNAL)
    else:
        missing.append(f"{JOURNAL} is missing: no choice has been scored yet.")
    tree = read_json(folder, RESULTS, "finalists and baselines have not all been trained yet", dict, missing)
    summary = read_json(folder, SUMMARY, "the search has not ended, or was stopped", dict, missing)
    job_tree = _job_tree(job or "", folder.url(JOB))
    return SearchRun(
        entries=entries,
        results=results_of(tree or {}, folder.url(RESULTS), _quality_of(job_tree)),
        summary=summary or {},
        supernet=_read_supernet(RunFolder(folder.url(SUPERNET))),
        job=job or "",
        job_tree=job_tree,
        missing=missing,
    )


def results_of(tree: Mapping[str, Any], origin: str, default: Quality = CLICKS) -> Results:
    """Read the tree of `results.json`, of `default` quality while it is empty.

    DataError where it does not hold what a search writes.
    """
    try:
        teacher = tree.get("teacher") or {}
        quality = QUALITIES[tree["metric"]] if "metric" in tree else default
        return Results(
            contenders=tuple(_contender(row, row, origin, quality) for row in tree.get("rows") or ()),
            quality=quality,
            teacher=(_number(teacher, "validation_log_loss"), _number(teacher, "test_log_loss")),
            days=(_days(tree.get("validation_days")), _days(tree.get("test_days"))),
            size=tree.get("size"),
            without_score=tuple(_sentences(tree.get("without_score") or ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{origin} is damaged, or was not written by a search ({type(error).__name__}: {error}); delete it and go "
            "on with the search to have it written anew"
        ) from error


def _sentences(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    stopped = [str(row["name"]) for row in rows if row.get("stopped")]
    if stopped:
        yield f"stopped early, behind others: {'finalist' if len(stopped) == 1 else 'finalists'} {', '.join(stopped)}"
    yield from (f"{row['kind']} {row['name']}: {row['reason']}" for row in rows if not row.get("stopped"))


def _contender(row: Mapping[str, Any], numbers: Mapping[str, Any], origin: str, quality: Quality) -> Contender:
    name = str(row["name"])
    scores = {
        "trial": f"trial_{quality.name}",
        "validation": f"validation_{quality.name}",
        "validation_second": f"validation_{quality.second}",
        "test": f"test_{quality.name}",
        "test_second": f"test_{quality.second}",
    }
    return Contender(
        kind=row["kind"],
        name=name,
        numbers={
            **{number: _number(numbers, number) for number in NUMBERS},
            **{score: _number(numbers, key) for score, key in scores.items()},
        },
        chosen=row.get("chosen") is True,
        trial=row.get("trial"),
        choice=_choice(row.get("choice"), f"{origin}, {name}"),
        key=row.get("key") or "",
        runs=tuple(_contender({**row, "runs": None}, run, origin, quality) for run in row.get("runs") or ()),
    )


def _choice(tree: Any, origin: str) -> NASRecConfig | None:
    is_network = isinstance(tree, dict) and tree.get("kind", "nasrec") == "nasrec"
    return canonical(check(NASRecConfig, tree, origin)) if is_network else None


def _number(tree: Mapping[str, Any], name: str) -> float | None:
    value = tree.get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def _days(days: list[str] | None) -> str:
    if not days:
        return ""
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _job_tree(text: str, origin: str) -> Mapping[str, Any]:
    try:
        tree = parse_yaml(text, origin)
    except ConfigError:
        return {}  # the page shows the text as it is
    return tree if isinstance(tree, dict) else {}


def _quality_of(job: Mapping[str, Any]) -> Quality:
    space = job.get("space")
    return NEXT_ITEMS if isinstance(space, Mapping) and space.get("kind") == "sasrec" else CLICKS


def _read_supernet(folder: RunFolder) -> History | None:
    return read_run(folder).history if folder.exists(HISTORY) else None
