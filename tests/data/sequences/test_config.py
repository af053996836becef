import pytest

from raysparse.config import check
from raysparse.data.sequences import GeneratedSequencesConfig, SequencesConfig
from raysparse.errors import ConfigError
from tests.data.sequences.converting import Sequences, settings

COLUMNS = {"user": "u", "item": "i", "time": "t"}


def test_defaults_and_the_way_back_from_the_manifest() -> None:
    for config in (settings(input="x", format="text"), settings(input="x", format="table", columns=COLUMNS)):
        assert config.split == "leave_one_out"
        again = check(Sequences, {"prepare": config.model_dump(mode="json")}, "the manifest").prepare
        assert again == config
    assert isinstance(settings(input="x", format="table", columns=COLUMNS, min_rating=None), SequencesConfig)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"format": "text", "split": "days"},
            r"split: found \"days\"; allowed: 'leave_one_out', as the format 'text' has",
        ),
        ({"format": "split", "split": "days"}, r"split: found \"days\"; .* the format 'split' has no dates"),
        ({"format": "table"}, r"columns: found null; allowed: the names of the columns `user`, `item` and `time`"),
        ({"format": "text", "columns": COLUMNS}, r"columns: .*allowed: nothing, as the format 'text' has its own"),
        (
            {"format": "gowalla", "min_rating": 3},
            r"min_rating: found 3; allowed: nothing, as the format 'gowalla' has no",
        ),
        ({"format": "table", "columns": COLUMNS, "min_rating": 3}, r"min_rating: .*columns\.rating is not given"),
        (
            {"format": "text", "split": "ready"},
            r"split: found \"ready\"; allowed: 'leave_one_out' or 'days', as the format 'text' is not split",
        ),
        ({"format": "split", "split": "ready", "min_user_events": 2}, r"min_user_events: found 2; allowed: 1, as a"),
        ({"format": "split", "split": "ready", "min_item_events": 2}, r"min_item_events: found 2; allowed: 1, as a"),
        ({"format": "netflix"}, r"format: found \"netflix\"; allowed: 'text', 'movielens'"),
        ({"format": "movielens", "max_history": 0}, r"max_history: found 0"),
    ],
)
def test_what_does_not_go_together(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(input="x", **keys)


def test_sizes_of_generated_sequences() -> None:
    assert GeneratedSequencesConfig(num_items=2**31 - 2).num_items == 2**31 - 2
    tree = {"source": "generated-sequences", "num_items": 2**31 - 1, "mean_length": 3.0}
    with pytest.raises(ConfigError, match=r"(?s)num_items: found 2147483647.*mean_length: found 3\.0"):
        check(Sequences, {"prepare": tree}, "the test")
