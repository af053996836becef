"""The layouts of MovieLens, and its files of films and users as columns of text."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import fsspec
import pyarrow as pa

from raysparse.data.delimited import LineFormat, read_whole_file
from raysparse.data.rejects import Rejects
from raysparse.data.sources.source import header_columns, reject_beside
from raysparse.errors import DataError

GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_RATING = ("user", "item", "rating", "timestamp")
_USER = ("gender", "age", "occupation")
_CSV_NAMES = {"userId": "user", "movieId": "item"}
_ATOMIC_NAMES = {
    "user_id": "user",
    "item_id": "item",
    "release_year": "year",
    "class": "genres",
    "genre": "genres",
    "movie_title": "title",
}


@dataclass(frozen=True)
class Layout:
    """Where the files lie and how their lines are cut. Column names are one vocabulary in all layouts."""

    name: str
    ratings: str
    rating_format: LineFormat
    films: str
    film_format: LineFormat
    users: str = ""
    """Empty where nothing is known of the users."""
    user_format: LineFormat | None = None

    @property
    def header(self) -> bool:
        """Whether the files begin with a line of names."""
        return self.name in ("csv", "atomic")


def find_layout(folder: str) -> Layout:
    """Find the layout of a folder (driver) from the files that are there; DataError where it is none."""
    filesystem, root = fsspec.core.url_to_fs(folder)
    if not filesystem.isdir(root):
        raise DataError(f"{folder} is not a folder; set `input` to the folder of the MovieLens files")
    local = "file" in filesystem.protocol
    paths = [path if local else filesystem.unstrip_protocol(path) for path in filesystem.ls(root, detail=False)]
    files = {posixpath.basename(path).removesuffix(".gz"): path for path in sorted(paths, reverse=True)}
    atomic = sorted(name.removesuffix(".inter") for name in files if name.endswith(".inter"))
    if "u.data" in files:
        return _layout_100k(folder, files)
    if "ratings.dat" in files:
        return _layout_1m(folder, files)
    if "ratings.csv" in files:
        return _layout_csv(folder, files)
    if atomic:
        return _layout_atomic(folder, files, atomic[0])
    raise DataError(
        f"{folder} holds no ratings; one of u.data, ratings.dat, ratings.csv or NAME.inter (also .gz) is expected"
    )


def column_names(layout: Layout) -> tuple[str, ...]:
    """Columns of the header line of the ratings; empty where they have none."""
    return layout.rating_format.columns if layout.header else ()


@lru_cache(maxsize=1)
def read_films(layout: Layout) -> dict[str, pa.Array]:
    """Films (worker, once a process): `key`, `genres` (lists of text) and `release_year` (text, null if unknown)."""
    films: dict[str, tuple[list[str], str | None]] = {}
    for row in _rows(layout.films, layout.film_format, layout.header):
        films.setdefault(row["item"] or "", (_genres(layout, row), _year(row)))
    return {
        "key": pa.array(films, pa.string()),
        "genres": pa.array([genres for genres, _ in films.values()], pa.list_(pa.string())),
        "release_year": pa.array([year for _, year in films.values()], pa.string()),
    }


@lru_cache(maxsize=1)
def read_users(layout: Layout) -> dict[str, pa.Array]:
    """Users (worker, once a process): `key`, `gender`, `age` and `occupation` as text; empty without users."""
    if layout.user_format is None:
        return {}
    users: dict[str, dict[str, str | None]] = {}
    for row in _rows(layout.users, layout.user_format, layout.header):
        users.setdefault(row["user"] or "", row)
    known = {name: pa.array([row[name] for row in users.values()], pa.string()) for name in _USER}
    return {"key": pa.array(users, pa.string())} | known


def record_wrong_rows(layout: Layout, rejects: Rejects) -> None:
    """Keep aside the lines of films and users that do not have the right columns (worker)."""
    for path, form in ((layout.films, layout.film_format), (layout.users, layout.user_format)):
        if form is not None:
            for block, rows in read_whole_file(path, form, layout.header):
                reject_beside(path, block, rows.misfits, rejects)


def _rows(path: str, form: LineFormat, header: bool) -> Iterator[dict[str, str | None]]:
    for _, rows in read_whole_file(path, form, header):
        yield from pa.table(rows.columns).to_pylist()


def _genres(layout: Layout, row: dict[str, str | None]) -> list[str]:
    if layout.name == "100k":
        return [name for name in GENRES_100K if row[name] == "1"]
    separator = " " if layout.name == "atomic" else "|"
    return [name for name in (row["genres"] or "").split(separator) if name not in ("", "(no genres listed)")]


def _year(row: dict[str, str | None]) -> str | None:
    """Take the year of the release date, the year's column, or the title's end: `Toy Story (1995)`."""
    for text in (row.get("year"), row.get("release_date"), row.get("title")):
        years = re.findall(r"(?:^|[-(])((?:18|19|20)\d\d)\)?\s*$", text or "")
        if years:
            return years[-1]
    return None


def _needed(folder: str, files: dict[str, str], name: str) -> str:
    if name not in files:
        raise DataError(f"{folder} holds no {name} (or {name}.gz), which belongs to the ratings beside it")
    return files[name]


def _layout_100k(folder: str, files: dict[str, str]) -> Layout:
    film = ("item", "title", "release_date", "video_date", "url", *GENRES_100K)
    user = ("user", "age", "gender", "occupation", "zip")
    return Layout(
        "100k",
        files["u.data"],
        LineFormat(_RATING, _RATING),
        _needed(folder, files, "u.item"),
        LineFormat(film, ("item", "title", "release_date", *GENRES_100K), "|", encoding="latin-1"),
        _needed(folder, files, "u.user"),
        LineFormat(user, ("user", *_USER), "|", encoding="latin-1"),
    )


def _layout_1m(folder: str, files: dict[str, str]) -> Layout:
    film = ("item", "title", "genres")
    user = ("user", "gender", "age", "occupation", "zip")
    return Layout(
        "1m",
        files["ratings.dat"],
        LineFormat(_RATING, _RATING, "::"),
        _needed(folder, files, "movies.dat"),
        LineFormat(film, film, "::", encoding="latin-1"),
        _needed(folder, files, "users.dat"),
        LineFormat(user, ("user", *_USER), "::", encoding="latin-1"),
    )


def _layout_csv(folder: str, files: dict[str, str]) -> Layout:
    movies = _needed(folder, files, "movies.csv")
    ratings = header_columns(files["ratings.csv"], ",", _RATING, _CSV_NAMES)
    films = header_columns(movies, ",", ("item", "title", "genres"), _CSV_NAMES)
    return Layout(
        "csv",
        files["ratings.csv"],
        LineFormat(ratings, _RATING, ",", quoted=True),
        movies,
        LineFormat(films, ("item", "title", "genres"), ",", quoted=True),
    )


def _layout_atomic(folder: str, files: dict[str, str], name: str) -> Layout:
    film_path = _needed(folder, files, f"{name}.item")
    users = files.get(f"{name}.user", "")
    ratings = header_columns(files[f"{name}.inter"], "\t", _RATING, _ATOMIC_NAMES)
    films = header_columns(film_path, "\t", ("item", "genres"), _ATOMIC_NAMES)
    film_columns = tuple(column for column in ("item", "genres", "year", "title") if column in films)
    known = ("user", *_USER)
    user_format = LineFormat(header_columns(users, "\t", known, _ATOMIC_NAMES), known) if users else None
    return Layout(
        "atomic",
        files[f"{name}.inter"],
        LineFormat(ratings, _RATING),
        film_path,
        LineFormat(films, film_columns),
        users,
        user_format,
    )
