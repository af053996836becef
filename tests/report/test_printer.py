import io

from raysparse.report.printer import Bar, Printer, aligned, cut


def test_cells_are_padded_to_their_column():
    assert aligned([("name", "n"), ("a", "1,234"), ("longer", "")], left=(0,)) == [
        "name        n",
        "a       1,234",
        "longer",
    ]


def test_long_names_are_cut():
    assert [cut(name, 6) for name in ("deepfm", "xdeepfm")] == ["deepfm", "xdee.."]


def test_without_a_terminal_bars_leave_no_trace():
    stream = io.StringIO()
    printer = Printer(stream, is_terminal=False)
    printer.show([Bar("trials", 1, 2, ("1 of 2",))])
    printer.line("a \x1b[31m line  ")
    printer.close()
    assert not printer.has_bars
    assert stream.getvalue() == "a ?[31m line\n"


def test_silence_is_counted_from_the_last_line():
    times = iter([0.0, 5.0, 12.0])
    printer = Printer(io.StringIO(), is_terminal=False, clock=lambda: next(times))
    printer.line("at 5 s")
    assert printer.silent_s == 7.0
