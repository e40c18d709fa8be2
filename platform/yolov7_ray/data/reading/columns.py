"""Some columns of a shard, read without the images."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ... import storage
from ...errors import Corrupt, NotFound
from ..manifest import ARROW_SCHEMA, Shard


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
