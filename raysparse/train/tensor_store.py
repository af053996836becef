"""Global tensors in files, through torch.distributed.checkpoint: safetensors and JSON, nothing pickled.

torch's own file format pickles its metadata; reading one would run what it holds.
"""

import dataclasses
import json
import posixpath
from collections.abc import Iterator
from typing import Any

import fsspec
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from raysparse.errors import CheckpointError
from raysparse.sharding.global_tensor import GlobalTensor, Piece

INDEX = "tensors.json"

_BYTES_PER_FILE = 2**28
"""A rank's file holds about so much: saving takes twice that beside the tensors, and restoring once."""


def save_tensors(url: str, tensors: dict[str, GlobalTensor]) -> None:
    """Write global tensors into the folder `url`: files of each rank, and an index. All ranks together."""
    save(
        dict(tensors),
        storage_writer=_Writer(url),
        planner=_SavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
    )


class TensorStore:
    """Reads what `save_tensors` wrote, into any cut of the tensors. CheckpointError names what is damaged."""

    def __init__(self, url: str) -> None:
        self._reader = _Reader(url)

    def shapes(self, prefix: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shapes and types of the tensors whose names start with `prefix`, by the rest of the name."""
        return {
            name.removeprefix(prefix): (tuple(entry.size), entry.properties.dtype)
            for name, entry in self._reader.read_metadata().state_dict_metadata.items()
            if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
        }

    def read(self, tensors: dict[str, GlobalTensor]) -> None:
        """Fill the pieces of `tensors`; all ranks together, each with its own pieces."""
        saved = self.shapes("")
        for name, tensor in tensors.items():
            if name not in saved:
                raise CheckpointError(
                    f"{self._reader.url} holds no {name}; it was made by a job with another model, or on data with "
                    "other tables: go on with that job and its data"
                )
            if saved[name][0] != tensor.shape:
                raise CheckpointError(
                    f"{self._reader.url}: {name} has the shape {list(saved[name][0])}, the job's model wants "
                    f"{list(tensor.shape)}; resume with the job that made the checkpoint"
                )
        try:
            self._load(tensors)
        except CheckpointException as error:
            raise _cause(error) from error

    def _load(self, tensors: dict[str, GlobalTensor]) -> None:
        load(
            dict(tensors),
            storage_reader=self._reader,
            planner=_LoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
        )


class _SavePlanner(DefaultSavePlanner):
    def create_local_plan(self) -> SavePlan:
        items: list[WriteItem] = []
        for name, tensor in self.state_dict.items():
            if tensor.replicated and not self.is_coordinator:
                continue
            for chunk in (chunk for piece in tensor.pieces for chunk in _chunks(piece)):
                data = TensorWriteData(chunk, TensorProperties(dtype=tensor.dtype), torch.Size(tensor.shape))
                index = MetadataIndex(name, chunk.offsets)
                items.append(WriteItem(index, WriteItemType.SHARD, tensor_data=data))
        self.plan = SavePlan(items)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        assert write_item.tensor_data is not None
        return _chunk_of(self.state_dict[write_item.index.fqn].pieces, write_item.tensor_data.chunk)


class _LoadPlanner(DefaultLoadPlanner):
    def set_up_planner(self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        # The default one walks the dictionary and drops what is no tensor of torch's own.
        self.state_dict = state_dict
        self.metadata = metadata
        self.is_coordinator = is_coordinator

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        items: list[ReadItem] = []
        for name, tensor in self.state_dict.items():
            entry = self.metadata.state_dict_metadata[name]
            assert isinstance(entry, TensorStorageMetadata)
            chunks = [ChunkStorageMetadata(torch.Size(p.offsets), p.tensor.shape) for p in tensor.pieces]
            items += create_read_items_for_chunk_list(name, entry, chunks)
        return LoadPlan(items)

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        tensor = _piece(self.state_dict, read_item.dest_index).tensor.detach()
        for dimension, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            tensor = tensor.narrow(dimension, start, length)
        return tensor

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing to do: what was resolved is live memory."""


def _cause(error: CheckpointException) -> BaseException:
    """What one of the ranks found, instead of torch's collection of tracebacks."""
    causes = [failure[0] for failure in error.failures.values()]
    return next((cause for cause in causes if isinstance(cause, CheckpointError)), error)


def _piece(tensors: dict[str, Any], index: MetadataIndex) -> Piece:
    pieces: tuple[Piece, ...] = tensors[index.fqn].pieces
    return next(piece for piece in pieces if torch.Size(piece.offsets) == index.offset)


def _chunks(piece: Piece) -> Iterator[ChunkStorageMetadata]:
    """Cut a piece into blocks of rows that fit a file."""
    shape = piece.tensor.shape
    if not shape:
        yield ChunkStorageMetadata(torch.Size(piece.offsets), shape)
        return
    rows = max(1, _BYTES_PER_FILE * shape[0] // max(1, piece.tensor.numel() * piece.tensor.element_size()))
    for start in range(0, max(1, shape[0]), rows):
        offsets = (piece.offsets[0] + start, *piece.offsets[1:])
        yield ChunkStorageMetadata(torch.Size(offsets), torch.Size((min(rows, shape[0] - start), *shape[1:])))


def _chunk_of(pieces: tuple[Piece, ...], chunk: ChunkStorageMetadata) -> Tensor:
    """The tensor of a chunk that `_chunks` has cut."""
    if not chunk.sizes:
        return pieces[0].tensor.detach()
    (row, *column), rows = chunk.offsets, chunk.sizes[0]
    for piece in pieces:
        start = row - piece.offsets[0]
        if list(piece.offsets[1:]) == column and start >= 0 and start + rows <= piece.tensor.shape[0]:
            return piece.tensor.detach()[start : start + rows]
    raise AssertionError(f"no piece holds the rows {row} to {row + rows}")


def _key(index: MetadataIndex) -> str:
    return f"{index.fqn}@{','.join(str(offset) for offset in index.offset or ())}"


def _by_file(items: list[WriteItem]) -> Iterator[list[WriteItem]]:
    """Group what a rank writes into files, one at least."""
    group: list[WriteItem] = []
    num_bytes = 0
    for item in items:
        assert item.tensor_data is not None
        size = item.tensor_data.chunk.sizes.numel() * item.tensor_data.properties.dtype.itemsize
        if group and num_bytes + size > _BYTES_PER_FILE:
            yield group
            group, num_bytes = [], 0
        group.append(item)
        num_bytes += size
    yield group


class _Writer(StorageWriter):
    def __init__(self, url: str) -> None:
        self._filesystem, self._root = fsspec.core.url_to_fs(url)

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept between saves."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._filesystem.makedirs(self._root, exist_ok=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results: list[WriteResult] = []
        for number, items in enumerate(_by_file(plan.items)):
            name = f"rank-{dist.get_rank():05d}{f'-{number:05d}' if number else ''}.safetensors"
            self._write_file(name, items, planner)
            results += [WriteResult(item.index, 0, name) for item in items]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def _write_file(self, name: str, items: list[WriteItem], planner: SavePlanner) -> None:
        tensors: dict[str, Tensor] = {}
        for item in items:
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, Tensor)
            # Copied, since views of one memory are refused.
            tensors[_key(item.index)] = tensor.cpu().clone(memory_format=torch.contiguous_format)
        self._filesystem.pipe_file(posixpath.join(self._root, name), save_safetensors(tensors))

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        file_of = {_key(result.index): result.storage_data for rank in results for result in rank}
        index: dict[str, Any] = {}
        for name, entry in metadata.state_dict_metadata.items():
            assert isinstance(entry, TensorStorageMetadata)
            boxes = [
                {
                    "offsets": list(chunk.offsets),
                    "sizes": list(chunk.sizes),
                    "file": file_of[_key(MetadataIndex(name, chunk.offsets))],
                }
                for chunk in entry.chunks
            ]
            dtype = str(entry.properties.dtype).removeprefix("torch.")
            index[name] = {"shape": list(entry.size), "dtype": dtype, "boxes": boxes}
        self._filesystem.pipe_file(posixpath.join(self._root, INDEX), json.dumps(index).encode())

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


class _Reader(StorageReader):
    def __init__(self, url: str) -> None:
        self.url = url
        self._filesystem, self._root = fsspec.core.url_to_fs(url)
        self._metadata: Metadata | None = None

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept between loads but the index."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        if self._metadata is None:
            index = json.loads(self._filesystem.cat_file(posixpath.join(self._root, INDEX)))
            entries: dict[str, Any] = {}
            files: dict[MetadataIndex, str] = {}
            for name, entry in index.items():
                chunks = [
                    ChunkStorageMetadata(torch.Size(box["offsets"]), torch.Size(box["sizes"])) for box in entry["boxes"]
                ]
                properties = TensorProperties(dtype=getattr(torch, entry["dtype"]))
                entries[name] = TensorStorageMetadata(properties, torch.Size(entry["shape"]), chunks)
                for chunk, box in zip(chunks, entry["boxes"], strict=True):
                    files[MetadataIndex(name, chunk.offsets)] = box["file"]
            self._metadata = Metadata(entries, storage_data=files)
        return self._metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The index was read when the metadata was."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        files = self.read_metadata().storage_data
        wanted: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            name = files[dataclasses.replace(item.storage_index, index=None)]
            wanted.setdefault(name, []).append(item)
        for name, items in wanted.items():
            self._read_file(name, items, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read_file(self, name: str, items: list[ReadItem], planner: LoadPlanner) -> None:
        path = posixpath.join(self._root, name)
        try:
            tensors = load_safetensors(self._filesystem.cat_file(path))
            for item in items:
                source = tensors[_key(item.storage_index)]
                for dimension, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                    source = source.narrow(dimension, start, length)
                planner.resolve_tensor(item).copy_(source)
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged: {error}; remove its checkpoint and resume again") from error

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True
