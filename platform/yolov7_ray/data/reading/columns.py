"""Some columns of a shard, read without the images."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from ... import storage
from ...errors import Corrupt, NotFound
from ..manifest import ARROW_SCHEMA, Shard

PARALLEL_READS = 8


def chosen_rows(dataset_uri: str, shards: Sequence[Shard], columns: Sequence[str],
                chosen: np.ndarray | None = None) -> list[pa.Table]:
    """The rows of all shards, or of `chosen`, ascending indices of samples; shards without any of them are not read."""
    ends = np.cumsum([shard.num_rows for shard in shards])

    def of_shard(number: int) -> pa.Table | None:
        first = ends[number] - shards[number].num_rows
        rows = None if chosen is None else chosen[(chosen >= first) & (chosen < ends[number])] - first
        if rows is not None and not len(rows):
            return None
        table = read_columns(dataset_uri, shards[number], columns)
        return table if rows is None else table.take(rows)

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return [table for table in pool.map(of_shard, range(len(shards))) if table is not None]


def read_columns(dataset_uri: str, shard: Shard, columns: Sequence[str]) -> pa.Table:
    """The rows of `shard` that are not removed; of a file in S3, too, only these columns are read.

    JobError if the shard is missing or damaged.
    """
    uri = storage.join(dataset_uri, shard.path)
    options = pa.ipc.IpcReadOptions(included_fields=[ARROW_SCHEMA.get_field_index(name) for name in columns])
    filesystem, path = storage.filesystem(uri)
    try:
        with filesystem.open_input_file(path) as file:
            table = pa.ipc.open_file(file, options=options).read_all()
    except FileNotFoundError:
        raise NotFound(uri, "a shard of the dataset is missing",
                       "run the ingest job again: it completes the dataset") from None
    except pa.ArrowInvalid as error:
        raise Corrupt(uri, f"the shard is damaged ({error})",
                      "run the ingest job again with `overwrite: true`") from None
    return table.take(np.delete(np.arange(table.num_rows), shard.removed)) if shard.removed else table
