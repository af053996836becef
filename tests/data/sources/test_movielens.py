import gzip
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raysparse.data.sources import open_source
from raysparse.data.sources.movielens import MovielensConfig
from raysparse.errors import DataError
from tests.data.sources.reading import Reading, id_of, read_source, shared

RATINGS = [("1", "10", "5", "978300760"), ("2", "10", "3", "978300761"), ("1", "11", "4", "978400000")]


def write_100k(folder: Path) -> None:
    (folder / "u.data").write_text("".join("\t".join(row) + "\n" for row in RATINGS))
    flags = {"10": {3, 4}, "11": set()}
    (folder / "u.item").write_bytes(
        "".join(
            f"{item}|Émile (1995)|01-Jan-1995||http://x|{'|'.join(str(int(n in on)) for n in range(19))}\n"
            for item, on in flags.items()
        ).encode("latin-1")
    )
    (folder / "u.user").write_text("1|24|M|technician|85711\n")


def write_1m(folder: Path) -> None:
    (folder / "ratings.dat").write_text("".join("::".join(row) + "\n" for row in RATINGS))
    films = "10::Émile, the: one (1995)::Animation|Children's\n11::Other (1995)::\n"
    (folder / "movies.dat").write_bytes(films.encode("latin-1"))
    (folder / "users.dat").write_text("1::M::24::technician::85711\n")


def write_20m(folder: Path) -> None:
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(",".join(row) + "\n" for row in RATINGS)
    )
    (folder / "movies.csv").write_text(
        'movieId,title,genres\r\n10,"Émile, the (1995)",Animation|Children\'s\r\n11,Other (1995),(no genres listed)\r\n'
    )


def write_atomic(folder: Path) -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    text = header + "".join("\t".join(row) + "\n" for row in RATINGS)
    (folder / "ml.inter.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "ml.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tÉmile\t1995\tAnimation Children's\n11\tOther\t1995\t\n"
    )
    (folder / "ml.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t24\tM\ttechnician\t85711\n"
    )


def check(reading: Reading, users: bool) -> None:
    assert reading.rejects == []
    assert reading.column("label") == [1, 0, 1]
    assert reading.days == ["2000-12-31", "2000-12-31", "2001-01-02"]
    assert reading.column("user") == [id_of(user, 100_000) for user in "121"]
    assert reading.column("item") == [id_of(item, 100_000) for item in ("10", "10", "11")]
    genres = [id_of(name, 1000) for name in ("Animation", "Children's")]
    assert reading.column("genres") == [genres, genres, []]
    assert reading.column("release_year") == [id_of("1995", 1000)] * 3
    if users:
        assert reading.column("occupation") == [id_of("technician", 1000), 0, id_of("technician", 1000)]
        assert reading.column("gender") == [id_of("M", 1000), 0, id_of("M", 1000)]
        assert reading.column("age") == [id_of("24", 1000), 0, id_of("24", 1000)]
    else:
        assert "age" not in reading.table.column_names


@pytest.mark.parametrize(
    ("write", "users"), [(write_100k, True), (write_1m, True), (write_20m, False), (write_atomic, True)]
)
def test_layouts_read_alike(tmp_path: Path, write, users: bool) -> None:
    write(tmp_path)
    check(read_source(MovielensConfig(input=str(tmp_path))), users)


def test_threshold(tmp_path: Path) -> None:
    write_1m(tmp_path)
    assert read_source(MovielensConfig(input=str(tmp_path), positive_rating=3)).column("label") == [1, 1, 1]


def test_bad_rows(tmp_path: Path) -> None:
    write_1m(tmp_path)
    with (tmp_path / "ratings.dat").open("a") as file:
        file.write("1::10::6::978300760\n1::10::x::978300760\n1::10::5::-4\n1::10::5::978300760000\n1:10:5:97830\n")
        file.write("::10::5::978300760\n")
    with (tmp_path / "movies.dat").open("a") as file:
        file.write("12::too short\n")
    reading = read_source(MovielensConfig(input=str(tmp_path)))
    assert reading.faults() == [
        (3, "2 instead of 3 columns"),
        (4, "rating is not above 0 and up to 5"),
        (5, "rating is not a number"),
        (6, "timestamp is out of range (Unix seconds, 1970 to 2099)"),
        (7, "timestamp is out of range (Unix seconds, 1970 to 2099)"),
        (8, "1 instead of 4 columns"),
        (9, "user is missing"),
    ]
    assert reading.table.num_rows == 3


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no ratings"):
        open_source(MovielensConfig(input=str(tmp_path)))
    (tmp_path / "ratings.dat").write_text("1::2::3::4\n")
    with pytest.raises(DataError, match=r"holds no movies\.dat"):
        open_source(MovielensConfig(input=str(tmp_path)))
    with pytest.raises(DataError, match="is not a folder"):
        open_source(MovielensConfig(input=str(tmp_path / "ratings.dat")))


def test_real_rows() -> None:
    folder = shared("ml-100k")
    reading = read_source(MovielensConfig(input=folder))
    assert reading.rejects == []
    assert reading.table.num_rows == 100_000
    with gzip.open(f"{folder}/ml-100k.inter.gz", "rt") as file:
        rows = [line.split("\t") for line in file.read().splitlines()[1:]]
    days = Counter(datetime.fromtimestamp(int(row[3]), UTC).date().isoformat() for row in rows)
    assert Counter(reading.days) == days
    assert len(days) == 213
    assert sum(reading.column("label")) == sum(int(row[2]) >= 4 for row in rows) == 55_375
    assert min(len(genres) for genres in reading.column("genres")) >= 1
    assert 0 not in reading.column("occupation")
