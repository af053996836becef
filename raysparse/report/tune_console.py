"""What the driver prints while a tune run goes on, and the table of its trials."""

import json
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

from raysparse.report.number_text import MISSING, counted, duration, fixed, whole
from raysparse.report.printer import Bar, Printer, aligned, cut
from raysparse.train.run_folder import JOB

_METRICS = {"log_loss": "log loss", "ne": "NE", "1-ndcg@10": "1 - NDCG@10"}
_WITH_AUC = ("log_loss", "ne")
_DIGITS = 5
_LONGEST_VALUE = 32
_LONGEST_STATUS = 72


class TuneConsole:
    """Prints each trial as it ends, and in the end all of them, the best first; takes plain dicts, in any process.

    Use it as a context manager, so that the terminal is left as it was whatever happens.
    """

    def __init__(self, stream: TextIO, is_terminal: bool) -> None:
        self._printer = Printer(stream, is_terminal)

    def __enter__(self) -> "TuneConsole":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._printer.close()

    def start(self, job_name: str, run_folder: str) -> None:
        """Print what is about to run."""
        self._printer.line(job_name, style="bold")
        self._printer.line(f"run folder {run_folder}")

    def message(self, text: str) -> None:
        """Print a line of text."""
        self._printer.line(text)

    def trial_started(self, number: int, values: Mapping[str, Any]) -> None:
        """Print what a trial tries."""
        self._printer.line(f"trial {number}: {_listed(values)}")

    def trial_ended(self, record: Mapping[str, Any], done: int, total: int) -> None:
        """Print what a trial came to, `record` as in `trials.jsonl`."""
        self._printer.line(f"trial {record['number']} {_ending(record)}; {done} of {total} done")
        self._printer.show([Bar("trials", done, total, (f"{done} of {total}",))])

    def finish(self, summary: Mapping[str, Any], run_folder: str) -> None:
        """Print all trials and how to run the best one's job; `summary` as in `summary.json`."""
        self._printer.close()
        totals = [counted(summary["num_trials"], "trial")]
        totals += [
            f"{whole(summary[f'num_{what}'])} {what}" for what in ("stopped", "failed") if summary[f"num_{what}"]
        ]
        self._printer.line("")
        self._printer.line(f"{summary['status']} in {duration(summary['seconds'])}: {', '.join(totals)}", style="bold")
        if summary["trials"]:
            table = trial_lines(summary["trials"], summary["metric"])
            self._printer.table(table[:1], table[1:])
        best = summary["best"]
        if best is not None:
            self._printer.line(
                f"best: trial {best['number']}, {best['run_folder']}; its job in a run folder of its own:"
            )
            own_folder = f"run_folder={posixpath.join(run_folder, 'best')}"
            command = ("raysparse", "train", posixpath.join(best["run_folder"], JOB), own_folder)
            self._printer.line(f"  {shlex.join(command)}")
        self._printer.line(f"run folder {run_folder}")


def trial_lines(trials: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Lay trials out as a table with a header, in their order; keys are cut to what tells them apart."""
    keys = list(trials[0]["values"])
    has_auc = metric in _WITH_AUC
    titles = ["trial", _METRICS[metric], *(["AUC"] if has_auc else []), "time", *short_keys(keys), "how it ended"]
    rows = [
        [
            str(trial["number"]),
            fixed(trial["metric"], _DIGITS),
            *([fixed(trial["auc"])] if has_auc else []),
            duration(trial["seconds"]),
            *(_value(trial["values"][key]) for key in keys),
            cut(_status(trial), _LONGEST_STATUS),
        ]
        for trial in trials
    ]
    return aligned([titles, *rows], left=(len(titles) - 1,))


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return of each dotted key the fewest last parts that no other one ends with: `dense.learning_rate`."""
    return [_shortest(key, [other for other in keys if other != key]) for key in keys]


def _shortest(key: str, others: Sequence[str]) -> str:
    parts = key.split(".")
    tails = (".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
    return next((tail for tail in tails if not any(f".{other}".endswith(f".{tail}") for other in others)), key)


def _ending(record: Mapping[str, Any]) -> str:
    if record["status"] != "finished":
        return _status(record)
    return f"finished in {duration(record['seconds'])}: {fixed(record['metric'], _DIGITS)}"


def _status(trial: Mapping[str, Any]) -> str:
    if trial["status"] == "stopped":
        scores = counted(len(trial["means"]), "score")
        return f"stopped after {scores} at {fixed(trial['means'][-1], _DIGITS)}"
    if trial["status"] == "failed":
        return f"failed: {' '.join(str(trial['error'] or MISSING).split())}"
    return "finished"


def _listed(values: Mapping[str, Any]) -> str:
    names = short_keys(list(values))
    return ", ".join(f"{name} {_value(value)}" for name, value in zip(names, values.values(), strict=True))


def _value(value: Any) -> str:
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _LONGEST_VALUE)
