"""Cache of decoded samples: the partners of a mosaic are images of neighbouring samples."""

from collections import OrderedDict
from dataclasses import replace
from typing import Protocol

from yolov7.images.sample import Sample, fitted_size_hw, reduction, shrunk


class Readable(Protocol):
    """A source of samples, such as an ArrowDataset."""

    def read(self, index: int, reduce: int) -> Sample: ...

    def size_hw(self, index: int) -> tuple[int, int]: ...


class DecodedSamples:
    """A dataset's samples with an LRU cache of up to `limit_bytes` of pixels.

    Results do not depend on the cache: an image is always decoded at one size, the smallest that
    has a pixel for every output pixel when its longer side is shown with `largest_px`, and averaged from there.
    """

    def __init__(self, dataset: Readable, largest_px: int, limit_bytes: float):
        self.dataset, self.largest_px, self.limit_bytes = dataset, largest_px, limit_bytes
        self.num_bytes = self.num_decoded = 0
        self._cached: OrderedDict[tuple[int, int], Sample] = OrderedDict()

    def read(self, index: int, reduce: int = 1) -> Sample:
        """Sample `index` at 1/reduce of its size (boxes stay in full pixels); its pixels are read-only."""
        largest = fitted_size_hw(self.dataset.size_hw(index), (self.largest_px, self.largest_px))[0]
        decoded = min(reduce, reduction(largest))
        sample = self._cached.get((index, decoded)) or self._decode(index, decoded)
        self._cached.move_to_end((index, decoded))
        self._evict()
        return sample if decoded == reduce else replace(sample, image=shrunk(sample.image, reduce // decoded))

    def _decode(self, index: int, reduce: int) -> Sample:
        sample = self._cached[index, reduce] = self.dataset.read(index, reduce)
        sample.image.flags.writeable = False
        self.num_bytes += sample.image.nbytes
        self.num_decoded += 1
        return sample

    def _evict(self) -> None:
        while self.num_bytes > self.limit_bytes:
            self.num_bytes -= self._cached.popitem(last=False)[1].image.nbytes
