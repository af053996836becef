import io
import re
from typing import Any

from raysparse.report.console import LINE_INTERVAL_S, ROWS_PER_HEADER, Console
from tests.report.runs import record, table


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def progress(rows_done: int, day_index: int = 1, phase: str = "train") -> dict[str, Any]:
    return {
        "event": "progress",
        "day": f"2013-01-0{day_index + 1}",
        "phase": phase,
        "rows_done": rows_done,
        "rows_of_phase": {"score": 2_000_000, "train": 2_000_000},
        "samples_per_s": 100_000.0,
        "day_index": day_index,
        "num_days": 3,
    }


def plain() -> tuple[Console, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return Console(stream, is_terminal=False, clock=clock), stream, clock


SUMMARY = {
    "status": "finished",
    "seconds": 437.2,
    "days": 365,
    "rows": 327_346,
    "samples_per_s": 108_000.0,
    "arms": {
        "trained": {"ne": 0.8756, "stream_ne": 0.8512, "auc": 0.7363, "calibration": 1.0, "ne_gap_percent": 0.0},
        "frozen": {"ne": 0.9587, "stream_ne": 0.9301, "auc": 0.5786, "calibration": 1.002, "ne_gap_percent": 9.486},
    },
}


def run_through(console: Console, clock: Clock) -> None:
    console.start("flights\x1b[31m \u202e[red]x[/red]", "/runs/flights")
    with console:
        console.plan([table("carrier"), table("tail_number", rows=4096, bytes=262_144, ranks=[0, 1])])
        for day_index in range(3):
            for phase in ("score", "train"):
                for rows_done in (0, 1_000_000, 2_000_000):
                    clock.now_s += 3.0
                    console.progress(progress(rows_done, day_index, phase))
            day = f"2013-01-0{day_index + 1}"
            console.day([record(day, "trained"), record(day, "frozen", ne=0.95, auc=None)])
        console.message("workers failed; restart 1 of 2")
    console.finish(SUMMARY, "/runs/flights", "/runs/flights/report.html")


def test_plain_output_has_no_control_characters():
    console, stream, clock = plain()
    run_through(console, clock)
    text = stream.getvalue()
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "flights?[31m ?[red]x[/red]\nrun folder /runs/flights\n" in text
    assert text.isascii()


def test_the_table_of_days_is_aligned():
    console, stream, _ = plain()
    console.day([record("2013-01-01", "trained", rows=987, samples_per_s=117_400.0), record("2013-01-01", "frozen")])
    console.day([record("2013-01-02", "trained", rows=1_234_567), record("2013-01-02", "frozen", ne=None, auc=None)])
    console.day([record("2013-01-03", "trained", warm_up=True), record("2013-01-03", "frozen", warm_up=True)])
    assert stream.getvalue().splitlines() == [
        "                                           trained          frozen",
        "day                rows  base rate      NE     AUC      NE     AUC     rows/s",
        "2013-01-01          987    25.00 %  0.9000  0.7000  0.9000  0.7000      117 k",
        "2013-01-02    1,234,567    25.00 %  0.9000  0.7000       -       -     50.0 k",
        "2013-01-03        1,000    25.00 %         warm-up         warm-up     50.0 k",
    ]


def test_the_header_returns_with_other_arms_and_after_many_days():
    console, stream, _ = plain()
    for _ in range(ROWS_PER_HEADER + 1):
        console.day([record("1", "a")])
    console.day([record("1", "a"), record("1", "an arm with a long name")])
    lines = stream.getvalue().splitlines()
    headers = [number for number, line in enumerate(lines) if line.startswith("day ")]
    assert headers == [1, ROWS_PER_HEADER + 3, ROWS_PER_HEADER + 6]
    assert "an arm with .." in lines[headers[2] - 1]


def test_arms_in_the_shadow_have_no_column():
    console, stream, _ = plain()
    console.day([record("1", "sparse")])
    console.day([record("2", "sparse"), record("2", "sparse.candidate", shadow=True)])
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["sparse", "day", "1", "2"]
    assert lines[3].split()[4:] == ["0.9000", "0.7000", "50.0", "k"]


def test_the_sharding_table_is_aligned_and_adds_up():
    console, stream, _ = plain()
    plan = [table("carrier"), table("tail_number", rows=4096, bytes=2**20, sharding="row_wise", ranks=[0, 1])]
    console.plan(plan)
    assert stream.getvalue().splitlines() == [
        "",
        "table          rows  dim  MiB  sharding    ranks",
        "carrier       1,024   16  0.1  table_wise  0",
        "tail_number   4,096   16  1.0  row_wise    0-1",
        "all 2 tables  5,120       1.1",
        "",
    ]
    console.plan(plan)  # workers that start again tell it again
    assert stream.getvalue().count("carrier") == 1


def test_many_tables_share_a_line():
    console, stream, _ = plain()
    console.plan([table(f"c{i:02d}") for i in range(26)])
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[2].split() == ["26", "tables", "c00..c25", "26,624", "16", "1.6", "table_wise", "0"]


def test_progress_lines_are_rare():
    console, stream, clock = plain()
    console.message("start")
    console.progress(progress(500_000, phase="score"))
    for _ in range(100):
        clock.now_s += 0.5
        console.progress(progress(500_000))
    lines = stream.getvalue().splitlines()[1:]
    assert len(lines) == 50 / LINE_INTERVAL_S
    assert lines[0] == (
        "train 2013-01-02 (day 2 of 3), 500,000 of 2,000,000 rows (25 %), 100 k rows/s, day 15 s left, run 55 s left"
    )


def test_epochs_and_the_test_are_not_called_days():
    console, stream, clock = plain()
    console.message("start")
    clock.now_s += LINE_INTERVAL_S
    console.progress(progress(500_000) | {"day": "epoch-001"})
    assert "train epoch-001 (2 of 3), 500,000 of 2,000,000 rows" in stream.getvalue()
    assert "rows/s, epoch 15 s left\n" in stream.getvalue()  # how fast it scores is not known yet
    console.finish({"epochs": 3, "rows": 1_000}, "run", "report.html")
    assert "finished: 3 epochs, 1,000 rows" in stream.getvalue()


def test_a_finished_day_stands_for_its_progress_line():
    console, stream, clock = plain()
    for _ in range(20):
        clock.now_s += LINE_INTERVAL_S - 1
        console.day([record("1", "a")])
        clock.now_s += 0.5
        console.progress(progress(500_000))
    assert "left" not in stream.getvalue()


def test_the_end_says_what_came_of_it_and_where_it_lies():
    console, stream, _ = plain()
    console.finish(SUMMARY, "/runs/flights", "/runs/flights/report.html")
    assert stream.getvalue().splitlines() == [
        "",
        "finished in 7 min 17 s: 365 days, 327,346 rows, 108 k rows/s of training",
        "arm          NE  stream NE     AUC  calibration  NE gap to trained",
        "trained  0.8756     0.8512  0.7363        1.000                  -",
        "frozen   0.9587     0.9301  0.5786        1.002           +9.486 %",
        "run folder /runs/flights",
        "report     /runs/flights/report.html",
    ]


def test_a_terminal_shows_bars_and_the_same_rows(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream, clock = io.StringIO(), Clock()
    console = Console(stream, is_terminal=True, clock=clock)
    run_through(console, clock)
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden and shown again
    shown = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)
    assert "of 2.00 M rows" in shown
    assert re.search(r"score 2013-01-01 ━+ +0 of 2\.00 M rows 100 k rows/s +\n", shown)
    assert re.search(r"run +━+ +day 3 of 3 ", shown)
    assert "[red]x[/red]" in shown
    assert "2013-01-03        1,000    25.00 %  0.9000  0.7000  0.9500       -     50.0 k" in shown


def test_an_error_gives_the_terminal_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    try:
        with Console(stream, is_terminal=True) as console:
            console.progress(progress(0))
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert stream.getvalue().count("\x1b[?25h") == 1
