import io
import re
from pathlib import Path
from typing import Any

from raysparse.report.search_console import LINE_INTERVAL_S, SearchConsole
from tests.report.searches import SUMMARY_TREE, finalist, row, space_of, write_journal
from tests.report.test_console import Clock


def plain() -> tuple[SearchConsole, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return SearchConsole(stream, is_terminal=False, clock=clock), stream, clock


def rows(folder: Path) -> list[dict[str, Any]]:
    space = space_of()
    choices = [space.parse(entry.choice) for entry in write_journal(folder, space, 2)]
    sizes = {"macs": 1_234_567, "parameters": 98_765, "embedding_bytes": 2**21}
    return [
        finalist(space, choices[0], 1, 0.45, validation=0.4512, test=0.4498) | sizes,
        finalist(space, choices[1], 2, 0.451, validation=0.4501, test=0.4487, chosen=True) | sizes,
        row("baseline", "deepfm", 0.4533, None, learning_rate=None, test_auc=0.765),
    ]


def test_progress_lines_are_rare_and_say_how_long_it_takes():
    console, stream, clock = plain()
    console.phase("scoring 300 choices with 2 actors")
    console.trial(100, 300, 0.47, 0)  # taken over from an earlier process: no part of the speed
    for done in range(101, 201):
        clock.now_s += 1.5
        console.trial(done, 300, 0.46, done // 150)
    lines = stream.getvalue().splitlines()[1:]
    assert len(lines) == 100 * 1.5 / LINE_INTERVAL_S
    assert lines[0] == "120 of 300 trials, best log loss 0.4600, 40 trials/min, 4 min 30 s left"
    assert lines[-1] == "200 of 300 trials, best log loss 0.4600, 1 failed, 40 trials/min, 2 min 30 s left"


def test_the_last_trial_has_its_line_once():
    console, stream, clock = plain()
    console.trial(9, 10, None, 9)
    clock.now_s += 12.0
    console.trial(10, 10, 0.5, 9)
    clock.now_s += 60.0
    console.trial(10, 10, 0.5, 9)
    assert stream.getvalue() == "10 of 10 trials, best log loss 0.5000, 9 failed, 5.0 trials/min\n"


def test_a_phase_has_a_speed_of_its_own():
    console, stream, clock = plain()
    console.trial(0, 10, None, 0)
    clock.now_s += 600.0
    console.phase("scoring again")
    console.trial(5, 10, 0.4, 0)
    clock.now_s += 30.0
    console.trial(6, 10, 0.4, 0)
    assert stream.getvalue().splitlines()[-1] == "6 of 10 trials, best log loss 0.4000, 2.0 trials/min, 2 min 00 s left"


def test_a_finished_run_is_a_line():
    console, stream, _ = plain()
    console.run_done("finalist 1, learning rate 0.001", 0.45123, 0.44876, 71.4)
    console.run_done("baseline a-name-that-is-much-too-long-for-its-column", None, 0.45, 3700.0)
    assert stream.getvalue().splitlines() == [
        "finalist 1, learning rate 0.001               log loss: validation 0.4512  test 0.4488  1 min 11 s",
        "baseline a-name-that-is-much-too-long-for-..  log loss: validation      -  test 0.4500  1 h 02 min",
    ]


def test_the_end_says_what_came_of_it_and_where_it_lies(tmp_path: Path):
    console, stream, _ = plain()
    teacher = {"validation_log_loss": 0.4395, "test_log_loss": 0.4371}
    results = {"rows": rows(tmp_path), "teacher": teacher}
    console.finish(results, SUMMARY_TREE, "/runs/clicks", "/runs/clicks/report.html")
    assert stream.getvalue().splitlines() == [
        "",
        "finished in 1 h 12 min: 300 trials, 3 failed, 42 trials/min",
        "network         rate    MACs  parameters  tables, MiB   trial  validation    test  test AUC",
        "finalist 1     0.001  1.23 M      98.8 k          2.0  0.4500      0.4512  0.4498    0.7652",
        "finalist 2 *   0.001  1.23 M      98.8 k          2.0  0.4510      0.4501  0.4487    0.7663",
        "deepfm                 100 k      50.0 k         15.9       -      0.4533       -    0.7650",
        "best possible                                                      0.4395  0.4371",
        "* the finalist with the least validation log loss",
        "run folder /runs/clicks",
        "report     /runs/clicks/report.html",
    ]


def test_the_end_of_a_search_without_contenders():
    console, stream, _ = plain()
    console.finish({}, {"status": "stopped"}, "/runs/clicks", "/runs/clicks/report.html")
    assert stream.getvalue().splitlines()[1:3] == ["stopped", "run folder /runs/clicks"]


def run_through(console: SearchConsole, clock: Clock, folder: Path) -> None:
    console.start("clicks\x1b[31m [red]x[/red]", "/runs/clicks")
    with console:
        console.phase("training the supernet on 10 days")
        console.message("restart 1 of 2")
        console.phase("scoring 300 choices")
        for done in range(0, 301, 50):
            clock.now_s += 40.0
            console.trial(done, 300, 0.46 if done else None, done // 100)
        console.run_done("finalist 1, learning rate 0.001", 0.45, 0.44, 71.0)
    stopped = {"kind": "finalist", "reason": "learning rate 3 stopped after 3 days at 0.5", "stopped": True}
    without = [
        {**stopped, "name": "4"},
        {**stopped, "name": "7"},
        {"kind": "baseline", "name": "dcn", "reason": "learning rate 3 failed: nan", "stopped": False},
    ]
    results = {"rows": rows(folder), "without_score": without}
    console.finish(results, SUMMARY_TREE, "/runs/clicks", "/runs/clicks/report.html")


def test_plain_output_has_no_control_characters(tmp_path: Path):
    console, stream, clock = plain()
    run_through(console, clock, tmp_path)
    assert all(letter.isprintable() or letter == "\n" for letter in stream.getvalue())
    assert stream.getvalue().isascii()
    assert "clicks?[31m [red]x[/red]\nrun folder /runs/clicks\n" in stream.getvalue()
    last = "\nstopped early, behind others: finalists 4, 7\nbaseline dcn: learning rate 3 failed: nan\nrun folder"
    assert last in stream.getvalue()


def test_a_terminal_shows_a_bar_and_the_same_lines(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream, clock = io.StringIO(), Clock()
    run_through(SearchConsole(stream, is_terminal=True, clock=clock), clock, tmp_path)
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden and shown again
    shown = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)
    assert re.search(r"trials ━+ +300 of 300 best 0\.4600 3 failed 75 trials/min", shown)
    assert "finalist 2 *  0.001  1.23 M" in shown
    assert "[red]x[/red]" in shown


def test_an_error_gives_the_terminal_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    try:
        with SearchConsole(stream, is_terminal=True) as console:
            console.trial(1, 10, None, 0)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert stream.getvalue().count("\x1b[?25h") == 1
