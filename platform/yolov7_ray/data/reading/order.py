"""Sample order: orders, batches, windows, sizes and rank shares as functions of (seed, epoch) and counts.

n samples · C classes
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIZE_STREAM = 1
"""Random stream of a step's image size, separate from that of the sample at the same position."""


# --- training -----------------------------------------------------------------------------------------


def epoch_order(num_samples: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Sample index at each position of the epoch.

    Every sample once; with `weights`, (n,), as many draws with replacement, in proportion to the weights.
    """
    rng = np.random.default_rng((seed, epoch))
    if weights is None:
        return rng.permutation(num_samples)
    if len(weights) != num_samples:
        raise ValueError(f"epoch_order: {len(weights)} weights for {num_samples} samples; give one each")
    return rng.choice(num_samples, num_samples, p=np.asarray(weights, np.float64) / np.sum(weights, dtype=np.float64))


@dataclass(frozen=True)
class Runs(Sequence):
    """Ranges of positions side by side: `num_long` of `long` positions each, then `num_short` of `short`."""

    start: int
    num_long: int
    long: int
    num_short: int
    short: int

    def __len__(self) -> int:
        return self.num_long + self.num_short

    def __getitem__(self, number: int) -> range:
        number = range(len(self))[number]
        start = self.start + number * self.short + min(number, self.num_long) * (self.long - self.short)
        return range(start, start + (self.long if number < self.num_long else self.short))

    @property
    def stop(self) -> int:
        """End of the last range."""
        return self.start + self.num_long * self.long + self.num_short * self.short

    def part_of(self, position: int) -> int:
        """Number of the range that holds this position."""
        offset = position - self.start
        in_long = self.num_long * self.long
        return offset // self.long if offset < in_long else self.num_long + (offset - in_long) // self.short


def equal_parts(positions: range, count: int) -> Runs:
    """A range in `count` parts whose sizes differ by at most one, the larger ones first, as np.array_split does."""
    size, longer = divmod(len(positions), count) if count else (0, 0)
    return Runs(positions.start, longer, size + 1, count - longer, size)


def epoch_positions(num_samples: int, batch_size: int) -> Runs:
    """Positions of each global batch; sizes differ by at most one, so all updates are equally noisy."""
    return equal_parts(range(num_samples), -(-num_samples // batch_size))


def epoch_batches(num_samples: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Sample indices of each global batch: every sample exactly once."""
    order = epoch_order(num_samples, seed, epoch)
    return [order[positions.start:positions.stop] for positions in epoch_positions(num_samples, batch_size)]


def rank_share(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The part of a global batch that `rank` works on; may be empty."""
    return np.array_split(batch, world_size)[rank]


def partner_window(steps: Runs, batch_size: int, window: int, position: int) -> range:
    """The positions from which the partners of the sample at `position` come, its own among them.

    A window holds about `window` positions: parts of one batch where that is larger, else whole batches, so
    that one process needs few images for many samples. 0: the epoch is one window.
    """
    if not window:
        return range(steps.start, steps.stop)
    step = steps.part_of(position)
    if batch_size >= window:
        parts = equal_parts(steps[step], max(1, len(steps[step]) // window))
        return parts[parts.part_of(position)]
    groups = equal_parts(range(len(steps)), max(1, len(steps) * batch_size // window))
    group = groups[groups.part_of(step)]
    return range(steps[group.start].start, steps[group.stop - 1].stop)


def widest_window(steps: Runs, batch_size: int, window: int) -> int:
    """Size of the largest window of an epoch."""
    firsts = (batch.start for batch in (steps[0], steps[-1]) if len(batch))
    return max((len(partner_window(steps, batch_size, window, first)) for first in firsts), default=0)


def step_size_px(size_px: int, multi_scale: float, stride_px: int, seed: int, epoch: int, step: int) -> int:
    """Side of the images of one global batch: a multiple of `stride_px` within (1 +- multi_scale) * size_px."""
    if not multi_scale:
        return size_px
    smallest = max(1, -(-size_px * (1 - multi_scale) // stride_px))
    largest = max(smallest, size_px * (1 + multi_scale) // stride_px)
    rng = np.random.default_rng((seed, epoch, step, SIZE_STREAM))
    return stride_px * int(rng.integers(smallest, largest, endpoint=True))


# --- image weights --------------------------------------------------------------------------------------


def class_weights(class_counts: np.ndarray, ap: np.ndarray | None = None) -> np.ndarray:
    """(C,) weights: rare classes and classes with a low AP weigh more.

    The inverse of each class's number of objects in `class_counts`, (n, C), times (1 - AP)^2 where `ap`, (C,), is
    given; NaN there (no objects) counts as 0. They sum to 1 before the AP factor.
    """
    inverse = 1 / np.maximum(class_counts.sum(0), 1)
    weights = inverse / inverse.sum()
    return weights if ap is None else weights * (1 - np.nan_to_num(ap)) ** 2


def image_weights(class_counts: np.ndarray, class_weights: np.ndarray) -> np.ndarray:
    """(n,) sampling weight of each image: its objects per class, (n, C), each with the weight of its class, (C,).

    An image without objects gets 0. If no image has any weight, all get 1.
    """
    weights = np.asarray(class_counts, np.float64) @ np.asarray(class_weights, np.float64)
    return weights if weights.any() else np.ones(len(weights))


# --- evaluation -----------------------------------------------------------------------------------------


def evaluation_batches(num_samples: int, batch_size: int, rank: int, world_size: int,
                       sizes_hw: np.ndarray | None = None) -> list[np.ndarray]:
    """Sample indices of this rank's batches, every sample once over all ranks.

    Each rank takes every `world_size`-th sample; with `sizes_hw`, (n, 2), every `world_size`-th batch of samples of
    similar aspect ratio.
    """
    if sizes_hw is None:
        return _chunks(np.arange(rank, num_samples, world_size), batch_size)
    by_aspect = np.argsort(sizes_hw[:, 0] / sizes_hw[:, 1], kind="stable")
    return _chunks(by_aspect, min(batch_size, -(-num_samples // world_size)))[rank::world_size]


def _chunks(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[start:start + size] for start in range(0, len(indices), size)]


def canvas_hw(sizes_hw: Sequence[tuple[int, int]], size_px: int, stride_px: int) -> tuple[int, int]:
    """Height and width that hold all images once their longer side is `size_px`, in multiples of `stride_px`.

    Half a stride more than needed, then rounded up, as the published evaluation does.
    """
    sizes = np.array(sizes_hw)
    fitted_to_1 = (sizes / sizes.max(1, keepdims=True)).max(0)  # before any rounding to pixels
    height, width = np.ceil(fitted_to_1 * size_px / stride_px + 0.5).astype(int) * stride_px
    return int(height), int(width)
