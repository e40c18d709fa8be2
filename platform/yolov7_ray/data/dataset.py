"""Shards → this rank's samples and batches, in an order that depends on (seed, epoch) alone.

Which sample stands at which position of an epoch, and in which global batch, is a function of (seed, epoch);
how it is augmented, of (seed, epoch, position). The number of workers, loader processes and restarts decides
only who makes a batch, so a resumed or resized job goes on with the very batches it would have seen.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from yolov7.augment import AugmentConfig, augmented_sample
from yolov7.batch import Batch, collate, evaluation_sample
from yolov7.sample import Sample, Truth, read_sample

from .. import storage
from ..errors import Corrupt, JobError
from .cache import NodeCache
from .mapped import MappedShard
from .schema import Manifest, load_manifest

PREFETCHED_BATCHES = 3
"""Batches that each loader process keeps ready."""


class ArrowDataset:
    """One split, as a sequence of samples; cheap to pickle, shards are mapped where and when they are read."""

    def __init__(self, uri: str, split: str, cache: NodeCache | None = None):
        self.uri, self.split_name, self.cache = storage.absolute(uri), split, cache or NodeCache()
        self.manifest: Manifest = load_manifest(self.uri)
        self.split = self.manifest.split(split)
        self._ends = np.cumsum([shard.num_rows for shard in self.split.shards])
        self._open: dict[int, MappedShard] = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": {}}

    def __len__(self) -> int:
        return self.split.num_rows

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""
        return self.manifest.classes

    @property
    def fingerprint(self) -> str:
        """Names exactly this content."""
        return self.manifest.fingerprint

    def read(self, index: int, reduce: int = 1) -> Sample:
        """Sample `index`, decoded at 1/reduce of its size (boxes stay in full pixels)."""
        shard, row = self._locate(index)
        values = shard.values(row)
        try:
            return read_sample(**values, image=shard.image(row), polygons=shard.polygons(row), reduce=reduce)
        except ValueError as error:
            raise Corrupt(self.uri, f"{self.split_name} image {index} cannot be read ({error})",
                          "remove the image from the source and ingest again") from None

    def truth(self, index: int) -> Truth:
        """The objects of sample `index`, without decoding its image."""
        shard, row = self._locate(index)
        values = shard.values(row)
        size_hw = values.pop("height_px"), values.pop("width_px")
        return Truth(size_hw=size_hw, **values)

    def size_hw(self, index: int) -> tuple[int, int]:
        """Height and width of sample `index`, without decoding it."""
        shard, row = self._locate(index)
        return shard.size_hw(row)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image, byte for byte as it came."""
        shard, row = self._locate(index)
        return shard.image(row).to_pybytes()

    def _locate(self, index: int) -> tuple[MappedShard, int]:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.uri} {self.split_name}: index {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        if number not in self._open:
            shard = self.split.shards[number]
            self._open[number] = MappedShard(self.cache.path(self.uri, shard))
        first = int(self._ends[number - 1]) if number else 0
        return self._open[number], index - first


# --- order --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class TrainStep:
    """This rank's share of one global batch."""

    batch: Batch
    num_samples: int
    """0: the share is empty, and the batch, one image, is only there to keep ranks in step; weigh it 0."""

    def pin_memory(self) -> "TrainStep":
        """Called by torch's DataLoader."""
        return TrainStep(self.batch.pin_memory(), self.num_samples)


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """Sample index at each position of the epoch."""
    return np.random.default_rng((seed, epoch)).permutation(num_samples)


def epoch_positions(num_samples: int, batch_size: int) -> list[np.ndarray]:
    """Positions of each global batch; sizes differ by at most one, so no update is noisier than another."""
    return np.array_split(np.arange(num_samples), -(-num_samples // batch_size))


def epoch_batches(num_samples: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Sample indices of each global batch: every sample exactly once."""
    order = epoch_order(num_samples, seed, epoch)
    return [order[positions] for positions in epoch_positions(num_samples, batch_size)]


def rank_share(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The part of a global batch that `rank` works on; may be empty."""
    return np.array_split(batch, world_size)[rank]


def train_loader(dataset: ArrowDataset, *, size_px: int, augment: AugmentConfig, batch_size: int, seed: int,
                 epoch: int, rank: int, world_size: int, first_step: int = 0,
                 processes: int = 0) -> Iterable[TrainStep]:
    """This rank's steps of one epoch, from `first_step` on; `batch_size` is that of the global batch."""
    steps = _TrainSteps(dataset, size_px, augment, batch_size, seed, epoch, rank, world_size)
    return _load(steps, range(first_step, len(steps)), processes)


def evaluation_loader(dataset: ArrowDataset, *, size_px: int, batch_size: int, rank: int, world_size: int,
                      processes: int = 0) -> Iterable[Batch]:
    """This rank's letterboxed images, every one once over all ranks; `batch_size` is per rank."""
    batches = _EvaluationBatches(dataset, size_px, np.arange(rank, len(dataset), world_size), batch_size)
    return _load(batches, range(len(batches)), processes)


@dataclass(eq=False)
class _TrainSteps(Dataset):
    """Random access to the steps of one epoch."""

    dataset: ArrowDataset
    size_px: int
    augment: AugmentConfig
    batch_size: int
    seed: int
    epoch: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        self.order = epoch_order(len(self.dataset), self.seed, self.epoch)
        self.positions = epoch_positions(len(self.dataset), self.batch_size)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, step: int) -> TrainStep:
        share = rank_share(self.positions[step], self.rank, self.world_size)
        shown = share if len(share) else self.positions[step][:1]
        return TrainStep(collate([self._sample(position) for position in shown]), len(share))

    def _sample(self, position: int) -> Sample:
        rng = np.random.default_rng((self.seed, self.epoch, int(position)))
        return augmented_sample(self.dataset.read, len(self.dataset), int(self.order[position]), self.size_px,
                                self.augment, rng, self.dataset.size_hw)


@dataclass(eq=False)
class _EvaluationBatches(Dataset):
    """Random access to the batches of one rank."""

    dataset: ArrowDataset
    size_px: int
    indices: np.ndarray
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __getitem__(self, number: int) -> Batch:
        indices = self.indices[number * self.batch_size:(number + 1) * self.batch_size]
        fitted = [evaluation_sample(self.dataset.read(index), self.size_px) for index in indices]
        return collate([sample for sample, _ in fitted], [letterbox for _, letterbox in fitted])


# --- processes ------------------------------------------------------------------------------------------


def _load(items: Dataset, order: Sequence[int], processes: int) -> Iterator:
    """`items[i]` for i in `order`, in that order, made here or in `processes` of their own."""
    if processes == 0:
        return (items[number] for number in order)
    loader = DataLoader(_Guarded(items), batch_size=None, sampler=order, num_workers=processes,
                        prefetch_factor=PREFETCHED_BATCHES, pin_memory=torch.cuda.is_available(),
                        worker_init_fn=_start_process, multiprocessing_context=_context())
    return _delivered(loader, processes)


def _context() -> multiprocessing.context.BaseContext:
    """A fork server: loader processes start at once, without copying the threads of Ray, CUDA and OpenMP."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_process(_: int) -> None:
    """One core per loader process: they are the parallelism. None outlives the process that reads from it."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """torch watches the fork server instead, which lives as long as its children do."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


@dataclass(eq=False)
class _Guarded(Dataset):
    """Hands a JobError over as a value: torch would raise it again as another type, with a traceback."""

    items: Dataset

    def __getitem__(self, number: int) -> object:
        try:
            return self.items[number]
        except JobError as error:
            return error


def _delivered(loader: DataLoader, processes: int) -> Iterator:
    try:
        for item in loader:
            if isinstance(item, JobError):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise JobError("data.loader_processes", f"one of {processes} loader processes died ({error})",
                       "most often memory ran out: use fewer loader processes or a smaller batch_size") from error
