from raysparse.report.plan_table import MOST_SINGLE_TABLES, plan_lines, rank_ranges
from tests.report.runs import table


def test_ranks_are_written_as_ranges():
    assert rank_ranges([6, 0, 1, 3, 2, 1]) == "0-3,6"
    assert rank_ranges([]) == ""
    assert rank_ranges([4]) == "4"


def test_few_tables_have_a_line_each():
    lines = plan_lines([table(f"c{i}") for i in range(MOST_SINGLE_TABLES)])
    assert [line.label for line in lines] == [f"c{i}" for i in range(MOST_SINGLE_TABLES)]


def test_many_tables_share_lines_that_add_up():
    plan = [table(f"c{i:02d}", rows=10 * (i + 1), ranks=[i % 4]) for i in range(26)]
    plan += [table("big", rows=1_000_000, sharding="row_wise", ranks=[0, 1, 2, 3], bytes=64_000_000)]
    alike, big = plan_lines(plan)
    assert (alike.label, alike.num_tables, alike.rows, alike.ranks) == (
        "26 tables c00..c25",
        26,
        10 * 26 * 27 // 2,
        "0-3",
    )
    assert (alike.num_bytes, alike.optimizer_bytes) == (26 * 65_536, 26 * 4096)
    assert (big.label, big.num_tables, big.sharding) == ("big", 1, "row_wise")
