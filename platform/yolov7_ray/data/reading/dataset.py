"""Shards → this rank's samples and batches, in an order that depends on (seed, epoch) alone (see `epoch_plan`).

The position of a sample in an epoch, and its global batch, are functions of (seed, epoch); its augmentation is a
function of (seed, epoch, position). The number of workers, loader processes and restarts decides only which process
makes a batch, so a resumed or resized job continues with the same batches.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from yolov7.images.augment import augmented_sample
from yolov7.images.batch import Batch, collate, evaluation_sample
from yolov7.images.config import AugmentConfig
from yolov7.images.sample import Sample, Truth, read_sample
from yolov7.training.stage_clock import Clock

from ... import storage
from ...errors import Corrupt
from ...jobs.spec import Reading
from ..manifest import Manifest, dataset_root, load_manifest
from .cache import NodeCache
from .decoded_images import DecodedSamples
from .epoch_plan import EpochPlan, Stream, epoch_plan
from .loader_processes import load
from .mapped_shard import MappedShard
from .order import canvas_hw, equal_parts, evaluation_batches, rank_share, step_size_px
from .prefetch import EpochSchedule, Prefetcher, Schedule, ShardSchedule, with_prefetch

DECODED_BYTES = 256e6
"""Decoded images that each loader process keeps."""


class ArrowDataset:
    """One split, as a sequence of samples; cheap to pickle, since shards are mapped when they are read."""

    def __init__(self, uri: str, split: str, cache: NodeCache | None = None):
        self.manifest: Manifest = load_manifest(storage.absolute(uri))
        self.uri, self.split_name = dataset_root(storage.absolute(uri)), split
        self.cache = cache or NodeCache()
        self.split = self.manifest.split(split)
        self.clock = Clock()
        """Seconds spent on `shard` (waiting until it is on this node's disk) and `decode`."""
        self._ends = np.cumsum([shard.num_rows for shard in self.split.shards])
        self._open: dict[int, MappedShard] = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": {}}

    def __len__(self) -> int:
        return self.split.num_rows

    @property
    def shard_rows(self) -> list[int]:
        """Samples in each shard."""
        return [shard.num_rows for shard in self.split.shards]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""
        return self.manifest.classes

    @property
    def fingerprint(self) -> str:
        """Identifies exactly this content."""
        return self.manifest.fingerprint

    def read(self, index: int, reduce: int = 1) -> Sample:
        """Sample `index`, decoded at 1/reduce of its size (boxes stay in full pixels)."""
        shard, row = self._locate(index)
        values = shard.values(row)
        try:
            with self.clock("decode"):
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
        height, width = shard.sizes_hw[row].tolist()
        return height, width

    def sizes_hw(self) -> np.ndarray:
        """(n, 2) height and width of all samples; all shards are opened."""
        return np.concatenate([shard.sizes_hw for shard in self._shards()])

    def class_counts(self) -> np.ndarray:
        """(n, C) objects of each class in every sample, without crowds; all shards are opened."""
        return np.concatenate([shard.class_counts(len(self.classes)) for shard in self._shards()])

    @property
    def objects_per_class(self) -> tuple[int, ...]:
        """Objects of each class in all samples."""
        return self.split.objects_per_class

    def image_bytes(self, index: int) -> bytes:
        """The encoded image, byte for byte as ingested."""
        shard, row = self._locate(index)
        return shard.image(row).to_pybytes()

    def _locate(self, index: int) -> tuple[MappedShard, int]:
        index = int(index)
        if not 0 <= index < self.split.num_rows:
            raise IndexError(f"{self.uri} {self.split_name}: index {index} of {self.split.num_rows}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        return self._shard(number), index - first

    def _shard(self, number: int) -> MappedShard:
        if number not in self._open:
            self._open = {n: shard for n, shard in self._open.items() if shard.path.exists()}  # evicted: free the disk
            shard = self.split.shards[number]
            with self.clock("shard"), self.cache.held(self.uri, shard) as path:
                self._open[number] = MappedShard(path, shard.removed)
        return self._open[number]

    def _shards(self) -> Iterator[MappedShard]:
        return map(self._shard, range(len(self.split.shards)))


# --- training -----------------------------------------------------------------------------------------


class Part(NamedTuple):
    """One of the equal parts of a global batch."""

    batch: Batch
    num_samples: int
    """0: the part is empty; its batch of one image only keeps ranks in step and has weight 0."""
    seconds: dict[str, float]
    """Time spent on each stage: `shard`, `decode`, `augment`."""


def train_loader(dataset: ArrowDataset, *, size_px: int, augment: AugmentConfig, batch_size: int, seed: int,
                 epoch: int, rank: int, world_size: int, parts: int | None = None, first_step: int = 0,
                 processes: int = 0, weights: np.ndarray | None = None, multi_scale: float = 0.0, stride_px: int = 32,
                 decoded_bytes: float = DECODED_BYTES, shuffle_shards: int | None = None,
                 node_of_part: Sequence[int] | None = None) -> Iterable[list[Part]]:
    """This rank's parts of every step of one epoch, from `first_step` on; `batch_size` is that of the global batch.

    A global batch is cut into `parts`, by default one for each of the `world_size` ranks, else one or more.
    With `weights`, (n,), samples are drawn in their proportion instead of once each. With `multi_scale` each global
    batch has its own image size, a multiple of `stride_px` within (1 +- multi_scale) * size_px. Every process keeps
    up to `decoded_bytes` of decoded images. With `shuffle_shards` the epoch uses so many shards at a time, with
    `node_of_part` each node its share of them: the epoch's order depends on it (see `epoch_plan`).
    """
    parts = world_size if parts is None else parts
    if parts < world_size:
        raise ValueError(f"parts: {parts} are too few for {world_size} ranks; give each one")

    def plan(number: int) -> EpochPlan:
        return epoch_plan(dataset.shard_rows, batch_size, seed, number, shuffle_shards=shuffle_shards, weights=weights,
                          node_of_part=node_of_part)

    own = rank_share(np.arange(parts), rank, world_size)
    steps = _TrainSteps(dataset, plan(epoch), size_px, augment, seed, epoch, own, parts, multi_scale, stride_px,
                        decoded_bytes)
    items = load(steps, range(first_step, len(steps)), processes)
    schedule = EpochSchedule(steps.plan.streams_of(own, parts), augment.partner_window,
                             lambda: plan(epoch + 1).streams_of(own, parts))
    return _prefetched(items, dataset, range(first_step, len(steps)), schedule)


def _prefetched(items: Iterable, dataset: ArrowDataset, places: Iterable[int], schedule: Schedule) -> Iterator:
    """Yield `items`, which start at `places` of the schedule, while the shards of the next ones are fetched."""
    return with_prefetch(items, places, schedule, dataset.split.shards, Prefetcher(dataset.cache, dataset.uri))


@dataclass(eq=False)
class _TrainSteps(Dataset):
    """Random access to the steps of one epoch."""

    dataset: ArrowDataset
    plan: EpochPlan
    size_px: int
    augment: AugmentConfig
    seed: int
    epoch: int
    parts: np.ndarray
    """Those of this rank, of `num_parts`."""
    num_parts: int
    multi_scale: float
    stride_px: int
    decoded_bytes: float

    def __post_init__(self) -> None:
        largest_px = int(self.size_px * (1 + self.multi_scale) * self.augment.magnification_range[1])
        self.decoded = DecodedSamples(self.dataset, largest_px, self.decoded_bytes)

    def __len__(self) -> int:
        return len(self.plan.steps)

    def __getitem__(self, step: int) -> list[Part]:
        size_px = step_size_px(self.size_px, self.multi_scale, self.stride_px, self.seed, self.epoch, step)
        return [self._part(step, int(part), size_px) for part in self.parts]

    def _part(self, step: int, part: int, size_px: int) -> Part:
        batch = self.plan.steps[step]
        share = equal_parts(batch, self.num_parts)[part]
        clock, reading = Clock(), self.dataset.clock
        reading.seconds.clear()
        with clock("augment"):
            samples = [self._sample(position, *self.plan.locate(position), size_px) for position in share]
            made = collate(samples or [self._sample(batch.start, *self.plan.stand_in(step, part), size_px)])
        clock.seconds["augment"] -= sum(reading.seconds.values())
        return Part(made, len(share), reading.seconds | clock.seconds)

    def _sample(self, position: int, stream: Stream, place: int, size_px: int) -> Sample:
        rng = np.random.default_rng((self.seed, self.epoch, position))
        partners = stream.partners(place, self.augment.partner_window)
        return augmented_sample(self.decoded.read, partners, int(stream.order[place]), size_px, self.augment, rng,
                                self.dataset.size_hw)


# --- evaluation ---------------------------------------------------------------------------------------


def evaluation_loader(dataset: ArrowDataset, *, size_px: int, batch_size: int, rank: int, world_size: int,
                      processes: int = 0, rectangular: bool = False, stride_px: int = 32) -> Iterable[Batch]:
    """This rank's letterboxed images, every one once over all ranks; `batch_size` is per rank.

    `rectangular` batches hold images of similar aspect ratio, on the smallest canvas in multiples of `stride_px` (plus
    half a stride) instead of a square: less to compute, at the same scale.
    """
    indices = _rank_batches(dataset, batch_size, rank, world_size, rectangular)
    batches = _EvaluationBatches(dataset, size_px, indices, stride_px if rectangular else None)
    starts = np.cumsum([0, *map(len, indices)])[:-1].tolist()
    schedule = ShardSchedule(np.concatenate([np.empty(0, int), *indices]), dataset.shard_rows)
    return _prefetched(load(batches, range(len(batches)), processes), dataset, starts, schedule)


def evaluation_order(dataset: ArrowDataset, *, batch_size: int, rank: int, world_size: int,
                     rectangular: bool = False) -> np.ndarray:
    """Indices of the images in the order of `evaluation_loader` with the same arguments."""
    return np.concatenate([np.empty(0, int), *_rank_batches(dataset, batch_size, rank, world_size, rectangular)])


def _rank_batches(dataset: ArrowDataset, batch_size: int, rank: int, world_size: int,
                  rectangular: bool) -> list[np.ndarray]:
    sizes_hw = dataset.sizes_hw() if rectangular else None
    return evaluation_batches(len(dataset), batch_size, rank, world_size, sizes_hw)


@dataclass(eq=False)
class _EvaluationBatches(Dataset):
    """Random access to the batches of one rank."""

    dataset: ArrowDataset
    size_px: int
    indices: list[np.ndarray]
    stride_px: int | None
    """Of rectangular batches; None: squares."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Batch:
        samples = [self.dataset.read(index) for index in self.indices[number]]
        canvas = None
        if self.stride_px:
            canvas = canvas_hw([sample.original_size_hw for sample in samples], self.size_px, self.stride_px)
        fitted = [evaluation_sample(sample, self.size_px, canvas) for sample in samples]
        return collate([sample for sample, _ in fitted], [letterbox for _, letterbox in fitted])


def open_splits(dataset: str, data: Reading, *splits: str) -> list[ArrowDataset]:
    """The named splits, read through this node's cache."""
    cache = NodeCache(data.cache_dir, data.cache_gb * 1e9)
    return [ArrowDataset(dataset, split, cache) for split in splits]
