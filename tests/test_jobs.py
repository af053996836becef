"""Every job in jobs/ runs in a small form: raw input in the source's layout, prepared, trained on one rank."""

import gzip
import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from raysparse.callbacks import SparsityConfig
from raysparse.config import Tree, parse_yaml
from raysparse.data.dataset import Dataset
from raysparse.data.sources import open_source
from raysparse.data.sources.criteo import Criteo1tbConfig
from raysparse.job import SearchJob, TrainJob, TuneJob, check_job, dump_job, load_job, load_train_job, require_kind
from raysparse.launch.click_search import CACHE
from raysparse.launch.contest import Contest
from raysparse.launch.entrants import entrants_of
from raysparse.launch.prepare import prepare
from raysparse.launch.search import baselines_of, finalists_of, open_search
from raysparse.launch.search_kind import kind_of
from raysparse.launch.tune_trials import Trials
from raysparse.launch.tune_values import build_proposer
from raysparse.launch.tuner import open_tune
from raysparse.models import build_model
from raysparse.search.journal import Journal
from raysparse.search.population import ListedSearch, build_searcher
from raysparse.search.relaxation import DifferentiableConfig
from raysparse.sharding.optimizer import fused_parameters, state_bytes_per_row
from raysparse.sharding.plan import GIB, TableSharder, describe_plan, make_plan, topology_of
from tests.train.ranks import history, run_job

JOBS = Path(__file__).resolve().parents[1] / "jobs"
NAMES = sorted(str(path.relative_to(JOBS)) for path in JOBS.rglob("*.yaml"))

TRAIN_NAMES = [name for name in NAMES if isinstance(load_job(JOBS / name), TrainJob)]

RowsOfDay = dict[str, int]
SMALL_TABLE = 500


@dataclass(frozen=True)
class SmallForm:
    """What makes a job small, beyond what `shrink` does to any."""

    write: Callable[[Path], RowsOfDay]
    """Writes the raw input at the job's own path, and tells the rows of each day that it holds; empty: as prepared."""
    overrides: tuple[str, ...] = ()


def criteo_row(number: int) -> str:
    counts = [str(number % 5), "", *(str(number % k) for k in range(2, 13))]
    return "\t".join([str(int(number % 3 == 0)), *counts, *(f"{number * k % 97:08x}" for k in range(26))]) + "\n"


def write_criteo_kaggle(path: Path) -> RowsOfDay:
    path.parent.mkdir(parents=True)
    path.write_text("".join(map(criteo_row, range(360))))
    return {"000": 120, "001": 120, "002": 120}


def write_criteo_1tb(path: Path) -> RowsOfDay:
    path.mkdir(parents=True)
    for day, rows in enumerate((130, 110, 90)):
        (path / f"day_{day}").write_text("".join(criteo_row(number + day) for number in range(rows)))
    return {"000": 130, "001": 110, "002": 90}


def write_avazu(path: Path) -> RowsOfDay:
    path.parent.mkdir(parents=True)
    header = (
        "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
        "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"
    )
    rows = [
        f"{number},{int(number % 6 == 0)},1410{21 + number // 110}{number % 24:02d},1005,{number % 2},s{number % 9},"
        f"d{number % 7},c{number % 5},a{number % 8},ad,ac{number % 3},dev{number % 31},ip{number % 53},m{number % 11},"
        f"1,0,{15704 + number % 13},320,50,{1722 + number % 6},0,35,-1,79\n"
        for number in range(330)
    ]
    path.write_text(header + "".join(rows))
    return {"2014-10-21": 110, "2014-10-22": 110, "2014-10-23": 110}


def write_kdd12(path: Path) -> RowsOfDay:
    path.parent.mkdir(parents=True)
    rows = [
        f"{int(number % 7 == 0)}\t{1 + number % 2}\t{4298118681424644510 + number % 19}\t{7686695 + number % 23}\t"
        f"{385 + number % 9}\t{1 + number % 3}\t{1 + number % 2}\t{number % 61}\t{number % 43}\t{number % 37}\t"
        f"{number % 29}\t{number % 41}\n"
        for number in range(360)
    ]
    path.write_text("".join(rows))
    profiles = [f"{user}\t{user % 3}\t{1 + user % 6}\n" for user in range(1, 35)]
    (path.parent / "userid_profile.txt").write_text("".join(profiles))
    return {"000": 120, "001": 120, "002": 120}


def write_movielens(path: Path) -> RowsOfDay:
    path.mkdir(parents=True)
    start = 978_307_200  # 2001-01-01, UTC
    ratings = [
        f"{number % 17}::{number % 29}::{1 + number * 7 % 5}::{start + 86_400 * (number % 3) + number}\n"
        for number in range(360)
    ]
    (path / "ratings.dat").write_text("".join(ratings))
    films = [f"{film}::Film {film} ({1980 + film})::{'|'.join(('Drama', 'War')[: film % 3])}\n" for film in range(29)]
    (path / "movies.dat").write_text("".join(films))
    users = [f"{user}::{'MF'[user % 2]}::{18 + user}::{user % 20}::10001\n" for user in range(17)]
    (path / "users.dat").write_text("".join(users))
    return {"2001-01-01": 120, "2001-01-02": 120, "2001-01-03": 120}


def write_flights(path: Path) -> RowsOfDay:
    path.parent.mkdir(parents=True)
    header = (
        "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
        "origin,dest,air_time,distance,hour,minute,time_hour\n"
    )
    rows_of_day: Counter[str] = Counter()
    rows: list[str] = []
    for number in range(330):
        day = 1 + number % 3
        hour = 5 + number % 18
        origin = ("EWR", "JFK", "LGA")[number % 7 % 3]
        delay = "NA" if number % 11 == 0 else str(number * 13 % 60 - 30)
        rows_of_day[f"2013-01-{day:02d}"] += delay != "NA"
        rows.append(
            f"2013,1,{day},NA,{hour}15,NA,NA,{hour + 1}45,{delay},{'UA' if number % 2 else 'DL'},{number % 40},"
            f"N{number % 60},{origin},{('IAH', 'ORD', 'SFO')[number % 3]},NA,{700 + number},{hour},15,NA\n"
        )
    path.write_text(header + "".join(rows))
    weather = [
        f"{origin},2013,1,{day},{hour},39.0,26.1,59.4,270,{hour / 2},NA,0.0,1012.0,10.0,NA\n"
        for origin, day, hour in itertools.product(("EWR", "JFK", "LGA"), (1, 2, 3), range(24))
    ]
    header = (
        "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour\n"
    )
    (path.parent / "weather.csv").write_text(header + "".join(weather))
    return dict(sorted(rows_of_day.items()))


def write_own_clicks(path: Path) -> RowsOfDay:
    path.mkdir(parents=True)
    start = 978_307_200  # 2001-01-01, UTC
    rows = [
        f"{int(number % 4 == 0)},{start + 86_400 * (number % 3) + number},{number % 40}.5,{number % 70 or ''},"
        f"u{number % 23},{number % 31},{'|'.join(map(str, range(number % 4)))},{'NL' if number % 2 else 'PT'}\n"
        for number in range(360)
    ]
    (path / "clicks.csv").write_text("clicked,shown_at,price,age,user,item,last_items,country\n" + "".join(rows))
    return {"2001-01-01": 120, "2001-01-02": 120, "2001-01-03": 120}


def sequence_of(user: int) -> list[int]:
    return [1 + (user + step) % 30 for step in range(4 + user % 6)]


def epochs_of(count: int) -> RowsOfDay:
    """The validation's rows, one per user, before and after each of two epochs, and the test's."""
    return {"epoch-000": count, "epoch-001": count, "epoch-002": count, "test": count}


def write_beauty(path: Path) -> RowsOfDay:
    path.parent.mkdir(parents=True)
    lines = (f"{user} {' '.join(map(str, sequence_of(user)))}\n" for user in range(60))
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return epochs_of(60)


def write_train_input(path: Path) -> RowsOfDay:
    path.mkdir(parents=True)
    lines = (" ".join(map(str, sequence_of(user))) + "\n" for user in range(60))
    (path / "train_input.txt.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return epochs_of(60)


def write_gowalla(path: Path) -> RowsOfDay:
    path.parent.mkdir(parents=True)
    lines = [
        f"{user}\t2010-10-{19 - step:02d}T23:55:27Z\t30.2\t-97.7\t{place}\n"
        for user in range(60)
        for step, place in enumerate(reversed([*sequence_of(user), *sequence_of(user)]))
    ]
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return epochs_of(60)


def write_rated_days(path: Path) -> RowsOfDay:
    write_movielens(path)
    return {"2001-01-01": 17, "2001-01-02": 17, "2001-01-03": 17}


def write_rated_films(path: Path) -> RowsOfDay:
    write_movielens(path)
    return {**epochs_of(17), "test": 17}


def no_input(path: Path) -> RowsOfDay:
    """The stream is generated."""
    return {f"2030-01-0{day}": 150 for day in (1, 2, 3)}


GENERATED = SmallForm(no_input, ("data.prepare.num_days=3", "data.prepare.rows_per_day=150"))

TWO_EPOCHS = ("data.epochs=2",)

FLIGHTS = SmallForm(
    write_flights, ("data.prepare.input=raw/flights/flights.csv", "data.prepare.weather=raw/flights/weather.csv")
)

SMALL_FORMS = {
    "avazu.yaml": SmallForm(write_avazu),
    "beauty.yaml": SmallForm(write_beauty, TWO_EPOCHS),
    "bench/ads.yaml": GENERATED,
    "bench/ads_allocation.yaml": GENERATED,
    "bench/ads_flights.yaml": FLIGHTS,
    "bench/ads_movielens.yaml": SmallForm(write_movielens),
    "bench/speed.yaml": GENERATED,
    "criteo-1tb.yaml": SmallForm(write_criteo_1tb),
    "criteo-kaggle.yaml": SmallForm(write_criteo_kaggle, ("data.prepare.num_days=3",)),
    "drift.yaml": GENERATED,
    "flights.yaml": FLIGHTS,
    "gowalla.yaml": SmallForm(write_gowalla, TWO_EPOCHS),
    "kdd12.yaml": SmallForm(write_kdd12, ("data.prepare.num_days=3",)),
    "movielens-100k-days.yaml": SmallForm(write_rated_days),
    "movielens-1m.yaml": SmallForm(write_train_input, TWO_EPOCHS),
    "movielens.yaml": SmallForm(write_movielens),
    "own-clicks.yaml": SmallForm(
        write_own_clicks, tuple(f"data.prepare.ids.{column}.rows={SMALL_TABLE}" for column in range(4))
    ),
    "search-avazu.yaml": SmallForm(write_avazu),
    "search-beauty.yaml": SmallForm(write_beauty),
    "search-movielens-1m.yaml": SmallForm(write_train_input),
    "search-movielens-100k.yaml": SmallForm(
        write_rated_films,
        ("supernet.epochs=2", "searcher.num_steps=3", "searcher.weight_steps=2", "space.lengths=[10]"),
    ),
    "search-criteo-kaggle.yaml": SmallForm(write_criteo_kaggle, ("data.prepare.num_days=3",)),
    "search-drift.yaml": GENERATED,
    "search-flights.yaml": FLIGHTS,
    "search-kdd12.yaml": SmallForm(write_kdd12, ("data.prepare.num_days=3",)),
    "search-movielens.yaml": SmallForm(write_movielens),
    "sequences-100m-items.yaml": SmallForm(
        lambda path: {},
        ("data.prepare.num_users=300", "data.prepare.num_items=5_000", "data.prepare.num_days=3"),
    ),
}


def shrink(name: str) -> tuple[str, ...]:
    """Overrides that make any job small: its tables and batches, no GPUs, arms that fork on the second day."""
    job = load_train_job(JOBS / name)
    rows = getattr(job.data.prepare, "rows", {})
    begins = {"early_stop": [], "frozen_arm": ["after_days=1"], "small_dense": []}
    windows = ["first_day=0", "widths.least_groups=1", "widths.least_share=0"]
    return (
        "data.batch_size=64",
        "scaling.use_gpu=false",
        *([f"data.prepare.rows_per_table={SMALL_TABLE}"] if hasattr(job.data.prepare, "rows_per_table") else []),
        *(f"data.prepare.rows.{feature}={SMALL_TABLE}" for feature in rows),
        *(
            f"callbacks.{number}.{setting}"
            for number, callback in enumerate(job.callbacks)
            for setting in [
                *begins.get(callback.kind, windows),
                *(["window_days=1"] if isinstance(callback, SparsityConfig) else []),
            ]
        ),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_job_is_checked(name: str):
    path = JOBS / name
    assert path.read_text().startswith("# "), f"jobs/{name} begins with no comment that says what it is"
    job = load_job(path)
    assert job.name == path.stem
    assert check_job(parse_yaml(dump_job(job), name), name) == job


def test_jobs_do_not_share_folders():
    jobs = [load_job(JOBS / name) for name in NAMES]
    assert len({job.run_folder for job in jobs}) == len(jobs)
    prepared: dict[str, set[str]] = {}
    for job in jobs:
        if not isinstance(job, TuneJob):
            prepared.setdefault(job.data.path, set()).add(repr(job.data.prepare))
    # The same raw data may be trained on and searched on; it is one data set then.
    assert [path for path, sources in prepared.items() if len(sources) > 1] == []


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "one_rank")
@pytest.mark.parametrize("name", TRAIN_NAMES)
def test_a_job_runs_in_a_small_form(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = SMALL_FORMS.get(name)
    if small is None:
        pytest.fail(f"jobs/{name} has no small form: add one to SMALL_FORMS in tests/test_jobs.py")
    job = load_train_job(JOBS / name, (*shrink(name), *small.overrides))
    assert job.data.prepare is not None, f"jobs/{name} does not say how its data set is made (data.prepare)"
    # The paths of a job are relative to where the command runs.
    monkeypatch.chdir(tmp_path)
    rows_of_day = small.write(Path(getattr(job.data.prepare, "input", "")))
    manifest = prepare(job.data.prepare, job.data.path)
    assert manifest.rejected == {}
    if manifest.data_schema.task == "click":
        assert {feature.rows for feature in manifest.data_schema.ids} == {SMALL_TABLE}
    run_job(job)
    check_history(job, rows_of_day or {day.day: day.rows for day in manifest.days})


SMALL_SEARCH = (
    "data.batch_size=64",
    f"data.prepare.rows_per_table={SMALL_TABLE}",
    "split={validation_days: 1, test_days: 1}",
    "space.num_blocks=2",
    "space.dense_widths=[8]",
    "space.token_counts=[4]",
    "supernet.sampling.warm_up_steps=2",
    "scoring.tuning_rows=100",
    "scoring.tuning_steps=2",
    "scoring.tuning_batch_size=32",
    "scaling.use_gpu=false",
)
SMALL_SEQUENCE_SEARCH = (
    "data.batch_size=32",
    "data.epochs=2",
    "space.widths=[8]",
    "space.head_dim=4",
    "space.heads=[1, 2]",
    "space.lengths=[5, 10]",
    "baselines.0.embedding_dim=8",
)


def small_search(name: str) -> SearchJob:
    """Return a search job in its small form."""
    job = require_kind(SearchJob, load_job(JOBS / name), name)
    tables = (f"data.prepare.rows.{feature}={SMALL_TABLE}" for feature in getattr(job.data.prepare, "rows", {}))
    budgets = ("finalists.budgets=[1_000_000]",) if job.finalists.budgets else ()
    overrides = (*SMALL_SEQUENCE_SEARCH, *budgets) if job.of_sequences else (*SMALL_SEARCH, *tables)
    return require_kind(SearchJob, load_job(JOBS / name, (*overrides, *SMALL_FORMS[name].overrides)), name)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "one_rank")
@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(load_job(JOBS / name), SearchJob)])
def test_a_search_runs_in_a_small_form(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Supernet, scores, a finalist and a baseline on one rank; tests/launch/test_search.py has the trials."""
    job = small_search(name)
    assert job.data.prepare is not None, f"jobs/{name} does not say how its data set is made (data.prepare)"
    monkeypatch.chdir(tmp_path)
    rows_of_day = SMALL_FORMS[name].write(Path(getattr(job.data.prepare, "input", "")))
    prepare(job.data.prepare, job.data.path)
    job, folder = open_search(job, "new")
    dataset = Dataset.open(job.data.path)
    kind = kind_of(job, dataset)
    run_job(kind.supernet_job(folder))
    scorer = kind.scorer(folder.url(CACHE), torch.device("cpu"))
    config = job.resolved_searcher
    if isinstance(config, DifferentiableConfig):
        found = kind.relaxed(folder.url(CACHE))
        searcher = ListedSearch(kind.space, [one.choice for one in found])
    else:
        searcher = build_searcher(config, kind.space, job.seed)
    journal = Journal.open(tmp_path / "journal.jsonl", {})
    for proposal in searcher.ask(2):
        searcher.tell(proposal, journal.record(proposal, scorer.score(proposal.choice, ()), 0.0).objectives)
    contenders = [*finalists_of(job, kind, journal.entries)[:1], *baselines_of(job, dataset)[:1]]
    assert [contender.kind for contender in contenders] == ["finalist", "baseline"]
    contest = Contest(entrants_of(job, contenders, folder), kind, folder, Quiet())
    for contender in contenders:
        number = contest.left()[0]
        train_job = contest.start(number)
        run_job(train_job)
        check_history(train_job, rows_of_day)
        for other in range(number, number + len(job.finalists.learning_rates)):
            contest.end(other, {"error": "not run"} if other > number else {"metric": 0.5, "seconds": 1.0}, [])
        row = contest.row(contender)
        assert row is not None
        assert 0 <= row[f"test_{kind.quality.name}"] < math.inf


SMALL_TUNE = ("job.data.batch_size=64", "job.scaling.num_workers=1", "job.scaling.threads_per_worker=1")
SMALL_TUNES = {
    "tune-beauty.yaml": SmallForm(
        write_beauty, ("job.data.epochs=2", "space={model.embedding_dim: {kind: choice, values: [8]}}")
    ),
    "tune-drift.yaml": SmallForm(
        no_input,
        (
            "job.data.prepare.num_days=3",
            "job.data.prepare.rows_per_day=150",
            f"job.data.prepare.rows_per_table={SMALL_TABLE}",
        ),
    ),
}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "one_rank")
@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(load_job(JOBS / name), TuneJob)])
def test_a_tune_job_runs_in_a_small_form(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A trial on one rank; tests/launch/test_tuner.py has what is around it."""
    monkeypatch.chdir(tmp_path)
    small = SMALL_TUNES[name]
    job, folder = open_tune(require_kind(TuneJob, load_job(JOBS / name, (*SMALL_TUNE, *small.overrides)), name), "new")
    trials = Trials(job, folder, build_proposer(job), Quiet())
    train_job = trials.start(0)
    assert train_job is not None
    assert train_job.data.prepare is not None, f"jobs/{name} does not say how its data set is made (data.prepare)"
    rows_of_day = small.write(Path(getattr(train_job.data.prepare, "input", "")))
    prepare(train_job.data.prepare, train_job.data.path)
    run_job(train_job)
    check_history(train_job, rows_of_day)


class Quiet:
    """Shows nothing of a search or of a tune run."""

    def phase(self, text: str) -> None: ...

    def trial(self, done: int, total: int, best: float | None, failed: int) -> None: ...

    def run_done(self, name: str, validation: float | None, test: float | None, seconds: float) -> None: ...

    def trial_started(self, number: int, values: Tree) -> None: ...

    def trial_ended(self, record: Tree, done: int, total: int) -> None: ...

    def message(self, text: str) -> None: ...


def check_history(job: TrainJob, rows_of_day: RowsOfDay) -> None:
    records = history(Path(job.run_folder))
    trained = [record for record in records if record["arm"] == "trained"]
    assert [(record["day"], record["rows"]) for record in trained] == list(rows_of_day.items())
    for record in records:
        if "targets" in record:
            assert record["targets"] >= record["rows"] > 0
            assert 0 <= record["mrr@10"] <= record["ndcg@10"] <= record["hr@10"] <= record["hr@20"] <= 1
            continue
        assert 0 < record["log_loss"] < math.inf
        assert 0 < record["ne"] < math.inf
    first = {"frozen_arm": 1, "small_dense": 0, "sparsity": 1}
    for callback in job.callbacks:
        if callback.kind in first:
            name = getattr(callback, "name", "")
            days = [record["day"] for record in records if record["arm"] == name]
            assert days == list(rows_of_day)[first[callback.kind] :]


def test_every_small_form_belongs_to_a_job():
    assert set(SMALL_FORMS) <= set(NAMES)


def test_the_tables_of_the_terabyte_job_fit_eight_gpus_of_16_gib():
    job = load_train_job(JOBS / "criteo-1tb.yaml")
    source = job.data.prepare
    assert isinstance(source, Criteo1tbConfig)
    model = build_model(job.model, open_source(source).schema(), job.seed)
    sparse = job.optimizer.sparse
    workers = job.scaling.num_workers
    topology = topology_of(workers, workers, torch.device("cuda"), 16 * GIB)
    plan = make_plan(model, TableSharder(fused_params=fused_parameters(sparse)), job.sharding, topology)
    tables = describe_plan(model, plan, lambda width: state_bytes_per_row(sparse, width))
    assert round(sum(table.bytes for table in tables) / GIB) == 98  # as the job's comment says
    largest = [table for table in tables if table.rows == 40_000_000]
    assert [table.table for table in largest] == ["C1", "C10", "C20", "C21", "C22"]
    assert all(table.ranks == tuple(range(workers)) for table in largest)
