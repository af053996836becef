"""The `raysparse` command."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from pydantic import TypeAdapter

from raysparse.config import Config, Tree, check, load_tree, override
from raysparse.errors import ConfigError, RaySparseError

if TYPE_CHECKING:
    from raysparse.data.dataset import Manifest

# Commands import what they need: torch alone takes 2 s, which `--help` should not.


class _Group(click.Group):
    """Shows an error of raysparse's own as one message; anything else is a fault of ours and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RaySparseError as error:
            raise click.ClickException(str(error)) from error


Command = TypeVar("Command", bound=Callable[..., None])


def _job_with_overrides(command: Command) -> Command:
    overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
    return click.argument("job_file", metavar="JOB.yaml")(overrides(command))


def _resume_or_fresh(command: Command) -> Command:
    fresh = click.option("--fresh", "mode", flag_value="fresh", help="Delete the run that is there and start anew.")
    resume = "Go on with the run, or start it where there is none."
    return click.option("--resume", "mode", flag_value="resume", help=resume)(fresh(command))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raysparse")
def main() -> None:
    """Train recommenders that are small, fast and fresh."""


@main.command()
@click.argument("source")
@click.option("--input", "input_path", help="Raw file, folder or glob; some sources find their own.")
@click.option("--output", required=True, help="Folder or URL of the data set.")
@click.option("--config", "config_file", help="YAML file with the source's keys (the mapping of `table`).")
@click.option("--overwrite", is_flag=True, help="Replace a data set that is there, once the new one is whole.")
@click.argument("settings", nargs=-1)
def prepare(
    source: str,
    input_path: str | None,
    output: str,
    config_file: str | None,
    overwrite: bool,
    settings: tuple[str, ...],
) -> None:
    """Turn raw logs into a data set of days.

    SOURCE is flights, criteo-kaggle, criteo-1tb, avazu, kdd12, movielens, table, drift, sequences or
    generated-sequences; SETTINGS are key=value pairs of the source, such as num_days=30.
    """
    from raysparse.launch.prepare import prepare as run

    tree: Tree = load_tree(config_file) if config_file is not None else {}
    tree = override({**tree, "source": source}, settings)
    if input_path is not None:
        tree["input"] = input_path
    config = _check_prepare(tree)
    manifest = run(config.prepare, output, overwrite)
    _show_days(manifest)
    rows = sum(day.rows for day in manifest.days)
    rejected = sum(manifest.rejected.values())
    click.echo(f"{rows:,} rows of {manifest.extent} in {output}; {rejected} rejected")
    for reason, count in manifest.rejected.items():
        click.echo(f"  {count} rows: {reason} (see {output}/rejects)")
    for reason, count in manifest.left_out.items():
        click.echo(f"  left out: {count:,} {reason}")
    if notes := manifest.source.get("notes"):
        click.echo(f"  {notes}")


@main.command()
@_job_with_overrides
@_resume_or_fresh
def train(job_file: str, overrides: tuple[str, ...], mode: Literal["resume", "fresh"] | None) -> None:
    """Train a job day by day; KEY=VALUE overrides keys of the job, such as scaling.num_workers=1."""
    from raysparse.job import load_train_job

    job = load_train_job(job_file, overrides)
    from raysparse.launch.trainer import open_run
    from raysparse.launch.trainer import train as run
    from raysparse.report.console import Console
    from raysparse.report.page import write_report

    job, folder = open_run(job, mode or "new")
    console = Console(sys.stdout, sys.stdout.isatty())
    console.start(job.name, job.run_folder)
    with console:
        summary = run(job, folder, console)
    console.finish(summary, job.run_folder, write_report(job.run_folder))


@main.command()
@_job_with_overrides
@_resume_or_fresh
def search(job_file: str, overrides: tuple[str, ...], mode: Literal["resume", "fresh"] | None) -> None:
    """Search the networks of a space: supernet, trials, finalists; KEY=VALUE overrides keys of the job."""
    from raysparse.job import SearchJob, load_job, require_kind

    job = require_kind(SearchJob, load_job(job_file, overrides), job_file)
    from raysparse.launch.search import open_search
    from raysparse.launch.search import search as run
    from raysparse.report.search_console import SearchConsole
    from raysparse.report.search_page import write_search_report

    job, folder = open_search(job, mode or "new")
    console = SearchConsole(sys.stdout, sys.stdout.isatty(), quality=job.quality)
    console.start(job.name, job.run_folder)
    with console:
        results, summary = run(job, folder, console)
    console.finish(results, summary, job.run_folder, write_search_report(job.run_folder))


@main.command()
@_job_with_overrides
@_resume_or_fresh
def tune(job_file: str, overrides: tuple[str, ...], mode: Literal["resume", "fresh"] | None) -> None:
    """Try values for keys of a train job, each in a run of its own; KEY=VALUE overrides keys of the tune job."""
    from raysparse.job import TuneJob, load_job, require_kind

    job = require_kind(TuneJob, load_job(job_file, overrides), job_file)
    from raysparse.launch.tuner import open_tune, require_best
    from raysparse.launch.tuner import tune as run
    from raysparse.report.tune_console import TuneConsole

    job, folder = open_tune(job, mode or "new")
    console = TuneConsole(sys.stdout, sys.stdout.isatty())
    console.start(job.name, job.run_folder)
    with console:
        summary = run(job, folder, console)
    console.finish(summary, job.run_folder)
    require_best(summary)


@main.command(name="check")
@_job_with_overrides
def check_command(job_file: str, overrides: tuple[str, ...]) -> None:
    """Check a job file, of a tune job its train jobs as well, and print it with every key given."""
    from raysparse.job import TuneJob, dump_job, load_job

    job = load_job(job_file, overrides)
    if isinstance(job, TuneJob):
        from raysparse.launch.tune_values import build_proposer, check_values

        check_values(job, build_proposer(job))
    click.echo(dump_job(job), nl=False)


@main.command()
def schema() -> None:
    """Print the JSON schema of a job file, for editors."""
    from raysparse.job import Job

    click.echo(json.dumps(TypeAdapter(Job).json_schema(), indent=1))


@main.command()
@click.argument("run_folder")
def report(run_folder: str) -> None:
    """Write the report of a train run or of a search again."""
    from raysparse.launch.tune_log import TRIALS
    from raysparse.report.page import write_report
    from raysparse.report.search_page import write_search_report
    from raysparse.report.search_run import is_search
    from raysparse.train.run_folder import RunFolder

    if RunFolder(run_folder).exists(TRIALS):
        raise ConfigError(
            f"RUN_FOLDER: found the tune run {run_folder}, which has no report of its own; allowed: a search or a "
            "train run, such as one of its trials"
        )
    click.echo(write_search_report(run_folder) if is_search(run_folder) else write_report(run_folder))


def _show_days(manifest: "Manifest") -> None:
    if manifest.data_schema.task == "next_item":
        click.echo(f"{manifest.data_schema.ids[0].rows - 1:,} items")
        click.echo(f"{'day':<14}{'rows':>12}")
        for day in manifest.days:
            click.echo(f"{day.day:<14}{day.rows:>12,}")
        return
    click.echo(f"{'day':<14}{'rows':>12}{'base rate':>12}{'best NE':>10}")
    for day in manifest.days:
        best = f"{day.best_ne:.4f}" if day.best_ne is not None else "-"
        click.echo(f"{day.day:<14}{day.rows:>12,}{day.base_rate:>12.4f}{best:>10}")


def _check_prepare(tree: Tree) -> Any:
    from raysparse.data.sources import PrepareConfig

    class Prepare(Config):
        prepare: PrepareConfig

    return check(Prepare, {"prepare": tree}, "the prepare command")


if __name__ == "__main__":
    main()
