import json
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from raysparse.errors import CheckpointError
from raysparse.search import feature_cache
from raysparse.search.feature_cache import CacheWriter, FeatureCache, Rows, batches_of
from raysparse.search.supernet_cache import digest_of
from tests.search.caches import ROWS, SPACE, draw_network, draw_rows, write_cache

WEIGHTS = "supernet.safetensors"
COLUMNS = ("dense", "pooled", "labels", "numbers")


def join(pieces: list[Rows]) -> Rows:
    """The rows of some pieces in the order of their numbers."""
    numbers = torch.cat([piece.numbers for piece in pieces])
    order = numbers.argsort()
    return Rows(*(torch.cat([getattr(piece, name) for piece in pieces])[order] for name in COLUMNS))


def equal(first: Rows, second: Rows) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in COLUMNS)


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_a_cache_reads_back_as_it_was_written(tmp_path: Path, num_ranks: int):
    cache = write_cache(tmp_path / "cache", num_ranks)
    manifest = cache.manifest
    assert manifest.rows == ROWS
    assert manifest.days == {"tuning": ("001",), "validation": ("002",)}
    assert (manifest.space, manifest.num_dense, manifest.num_features) == (SPACE, 2, 3)
    assert manifest.supernet == digest_of(tmp_path / "cache" / WEIGHTS)
    assert len(cache.rows("tuning")) == num_ranks
    assert equal(join(cache.rows("tuning")), draw_rows(120, 0))
    assert equal(join(cache.rows("validation")), draw_rows(90, 1))
    weights = dict(cache.network(torch.device("cpu")).named_parameters())
    assert all(torch.equal(weights[name], p) for name, p in draw_network().named_parameters())
    assert not any(parameter.requires_grad for parameter in weights.values())


def test_a_rank_holds_no_more_rows_in_memory_than_a_piece_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feature_cache, "ROWS_PER_PIECE", 25)
    cache = write_cache(tmp_path / "cache")
    # Batches of 10: a piece is full with the third of them.
    assert [len(piece) for piece in cache.rows("tuning")] == [30, 30, 30, 30]
    assert [len(piece) for piece in cache.rows("validation")] == [30, 30, 30]
    assert equal(join(cache.rows("tuning")), draw_rows(120, 0))


@pytest.mark.parametrize("limit", [0, 1, 45, 119, 120, 500])
def test_a_limit_takes_the_same_first_rows_from_any_number_of_ranks(tmp_path: Path, limit: int):
    for num_ranks in (1, 3):
        pieces = write_cache(tmp_path / str(num_ranks), num_ranks).rows("tuning", limit)
        kept = min(limit, 120)
        assert sum(map(len, pieces)) == kept
        assert all(map(len, pieces))
        if pieces:
            expected = draw_rows(120, 0)
            assert torch.equal(join(pieces).labels, expected.labels[:kept])
            assert torch.equal(join(pieces).pooled, expected.pooled[:kept])


def test_batches_are_views_of_at_most_so_many_rows(tmp_path: Path):
    pieces = write_cache(tmp_path / "cache", 2).rows("tuning")
    batches = list(batches_of(pieces, 25))
    assert [len(batch) for batch in batches] == [25, 25, 10, 25, 25, 10]
    assert equal(join(batches), draw_rows(120, 0))
    assert batches[1].pooled.data_ptr() == pieces[0].pooled[25:].data_ptr()


def test_what_a_reader_writes_into_its_rows_stays_with_it(tmp_path: Path):
    cache = write_cache(tmp_path / "cache")
    cache.rows("tuning")[0].pooled.zero_()
    assert equal(join(cache.rows("tuning")), draw_rows(120, 0))


def test_no_rows_are_no_pieces(tmp_path: Path):
    writer = CacheWriter(str(tmp_path / "cache"), 0)
    writer.write_rows("tuning", [])
    writer.write_rows("validation", [draw_rows(0, 1), draw_rows(3, 1), draw_rows(0, 1)])
    writer.finish(dict(draw_network().state_dict()), SPACE, (2, 3), {"tuning": (), "validation": ("002",)})
    cache = FeatureCache.open(str(tmp_path / "cache"))
    assert cache.manifest.rows == {"tuning": 0, "validation": 3}
    assert cache.rows("tuning") == []
    assert equal(join(cache.rows("validation")), draw_rows(3, 1))


def test_a_remote_cache_is_copied_and_the_copy_goes_with_its_reader(tmp_path: Path):
    cache = write_cache("memory://remote/cache", 2)
    local = cache.folder
    assert equal(join(cache.rows("validation")), draw_rows(90, 1))
    rows = cache.rows("tuning")
    del cache
    assert not local.exists()
    # What is mapped stays.
    assert equal(join(rows), draw_rows(120, 0))
    assert fsspec.filesystem("memory").exists("/remote/cache/manifest.json")


def test_a_new_cache_replaces_the_old_one_and_nothing_else(tmp_path: Path):
    write_cache(tmp_path / "cache", 3)
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    CacheWriter(str(tmp_path / "cache"), 0).clear()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["notes.txt"]
    assert write_cache(tmp_path / "cache", 1).manifest.rows == ROWS
    CacheWriter(str(tmp_path / "nowhere"), 0).clear()


def test_weights_of_another_supernet_are_refused_with_both_digests(tmp_path: Path):
    folder = tmp_path / "cache"
    was = write_cache(folder).manifest.supernet
    weights = load_file(folder / WEIGHTS)
    weights["logit.bias"] += 1
    save_file(weights, folder / WEIGHTS)
    now = digest_of(folder / WEIGHTS)
    assert was != now
    with pytest.raises(CheckpointError, match=f"looked up for the supernet {was}, and {WEIGHTS} beside it is {now}"):
        FeatureCache.open(str(folder))
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=f"holds no {WEIGHTS}"):
        FeatureCache.open(str(folder))


def test_a_cache_without_a_manifest_is_not_whole(tmp_path: Path):
    write_cache(tmp_path / "cache")
    (tmp_path / "cache" / "manifest.json").unlink()
    for folder in (tmp_path / "cache", tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"holds no manifest.json: its cache was not finished"):
            FeatureCache.open(str(folder))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "is damaged"), ("[1]", "is damaged"), ('{"format_version": 1}', "supernet: missing")],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str, reason: str):
    write_cache(tmp_path / "cache")
    (tmp_path / "cache" / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=reason):
        FeatureCache.open(str(tmp_path / "cache"))


def test_another_format_version_is_refused(tmp_path: Path):
    write_cache(tmp_path / "cache")
    manifest = tmp_path / "cache" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 9}))
    with pytest.raises(CheckpointError, match="format version 9, this version reads 1"):
        FeatureCache.open(str(tmp_path / "cache"))


def test_missing_and_damaged_rows_are_refused(tmp_path: Path):
    cache = write_cache(tmp_path / "cache", 3)
    damaged, missing = (tmp_path / "cache" / "tuning" / f"rank-0000{rank}-00000.pooled.npy" for rank in (1, 2))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=damaged.name):
        cache.rows("tuning")
    damaged.unlink()
    with pytest.raises(CheckpointError, match=damaged.name):
        cache.rows("tuning")
    for rank in (1, 2):
        missing.with_name(f"rank-0000{rank}-00000.labels.npy").unlink()
    with pytest.raises(CheckpointError, match=r"tuning holds 48 rows, manifest.json says 120"):
        cache.rows("tuning")
    assert len(join(cache.rows("validation"))) == 90
