"""A part of a split, for trials: the same images whatever the seed of training, and a larger part holds a smaller."""

import numpy as np

from ..manifest import dataset_root
from .columns import chosen_rows
from .dataset import ArrowDataset
from .mapped_shard import MappedShard

CHOICE_SEED = 20_220_707
"""Independent of a job's `seed`, so that trials with other seeds see the same images."""


def chosen_indices(num_samples: int, num_chosen: int) -> np.ndarray:
    """(num_chosen,) ascending indices, a random choice; each is in every larger choice as well."""
    return np.sort(np.random.default_rng(CHOICE_SEED).permutation(num_samples)[:num_chosen])


class ChosenSamples(ArrowDataset):
    """`num_chosen` samples of a split, in its order; shards that hold none of them are not fetched for training."""

    def __init__(self, dataset: ArrowDataset, num_chosen: int):
        super().__init__(dataset.uri, dataset.split_name, dataset.cache)
        self.indices = chosen_indices(len(dataset), num_chosen)
        self._shard_rows = np.bincount(np.searchsorted(self._ends, self.indices, side="right"),
                                       minlength=len(self._ends)).tolist()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shard_rows(self) -> list[int]:
        """Chosen samples in each shard, 0 where it holds none."""
        return self._shard_rows

    def sizes_hw(self) -> np.ndarray:
        """(n, 2) height and width of the chosen samples; all shards are opened."""
        return super().sizes_hw()[self.indices]

    def class_counts(self) -> np.ndarray:
        """(n, C) objects of each class in the chosen samples, without crowds; all shards are opened."""
        return super().class_counts()[self.indices]

    @property
    def objects_per_class(self) -> tuple[int, ...]:
        """Objects of each class in the chosen samples; their labels are read, and nothing else."""
        tables = chosen_rows(dataset_root(self.uri), self.split.shards, ["labels"], self.indices)
        labels = [table["labels"].combine_chunks().flatten().to_numpy() for table in tables]
        return tuple(np.bincount(np.concatenate(labels), minlength=len(self.classes)).tolist())

    def _locate(self, index: int) -> tuple[MappedShard, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.uri} {self.split_name}: index {index} of {len(self)} chosen")
        return super()._locate(self.indices[index])
