"""Shards → samples: random access to one split of an Arrow dataset, by mapped files."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from yolov7.sample import Polygons, Sample, read_sample

from .. import storage
from ..errors import Corrupt
from .cache import NodeCache
from .schema import Manifest, load_manifest


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The objects of one image, in pixels of the stored image; its pixels are not decoded."""

    image_id: int
    file_name: str
    size_hw: tuple[int, int]
    boxes_xyxy: np.ndarray
    """(n, 4) float32."""
    labels: np.ndarray
    """(n,) int64."""
    iscrowd: np.ndarray
    """(n,) bool."""
    area: np.ndarray
    """(n,) float32."""


class ArrowDataset:
    """One split, as a sequence of samples; cheap to pickle, shards are mapped where and when they are read."""

    def __init__(self, uri: str, split: str, cache: NodeCache | None = None):
        self.uri, self.split_name, self.cache = storage.absolute(uri), split, cache or NodeCache()
        self.manifest: Manifest = load_manifest(self.uri)
        self.split = self.manifest.split(split)
        self._ends = np.cumsum([shard.num_rows for shard in self.split.shards])
        self._open: dict[int, _MappedShard] = {}

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

    def image_bytes(self, index: int) -> bytes:
        """The encoded image, byte for byte as it came."""
        shard, row = self._locate(index)
        return shard.image(row).to_pybytes()

    def _locate(self, index: int) -> tuple["_MappedShard", int]:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.uri} {self.split_name}: index {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        if number not in self._open:
            shard = self.split.shards[number]
            self._open[number] = _MappedShard(str(self.cache.path(self.uri, shard)))
        first = int(self._ends[number - 1]) if number else 0
        return self._open[number], index - first


class _MappedShard:
    """The rows of one mapped Arrow file."""

    def __init__(self, path: str):
        reader = pa.ipc.open_file(pa.memory_map(path))
        self.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self.ends = np.cumsum([batch.num_rows for batch in self.batches])

    def _cell(self, row: int, column: str) -> pa.Scalar:
        number = int(np.searchsorted(self.ends, row, side="right"))
        batch = self.batches[number]
        return batch.column(column)[row - int(self.ends[number]) + batch.num_rows]

    def image(self, row: int) -> pa.Buffer:
        """The encoded image, not copied."""
        return self._cell(row, "image").as_buffer()

    def values(self, row: int) -> dict:
        """All columns but image and polygons, under their names."""
        def array(column: str, dtype: type) -> np.ndarray:
            return self._cell(row, column).values.to_numpy(zero_copy_only=False).astype(dtype)

        return {
            "image_id": self._cell(row, "image_id").as_py(), "file_name": self._cell(row, "file_name").as_py(),
            "height_px": self._cell(row, "height_px").as_py(), "width_px": self._cell(row, "width_px").as_py(),
            "boxes_xyxy": self._cell(row, "boxes_xyxy").values.flatten().to_numpy().reshape(-1, 4).copy(),
            "labels": array("labels", np.int64), "iscrowd": array("iscrowd", np.bool_),
            "area": array("area", np.float32),
        }

    def polygons(self, row: int) -> Polygons:
        """Per object its rings, (k, 2) float32."""
        objects = self._cell(row, "polygons").values
        of_object, rings = objects.offsets.to_numpy(), objects.values
        of_ring, xy = rings.offsets.to_numpy(), rings.values.to_numpy()
        return [[xy[of_ring[ring]:of_ring[ring + 1]].reshape(-1, 2) for ring in range(first, last)]
                for first, last in zip(of_object[:-1], of_object[1:], strict=True)]
