"""Class names that the `datasets` library writes into the schema of Parquet files."""

import json
from collections.abc import Iterator

import pyarrow as pa

from .....errors import JobError
from .layout import Layout


def class_label_names(schema: pa.Schema, layout: Layout) -> list[str]:
    """Names in order of number of the column of classes; empty where there are none."""
    text = (schema.metadata or {}).get(b"huggingface")
    if not text:
        return []
    try:
        features = json.loads(text)["info"]["features"]
    except (ValueError, KeyError, TypeError) as error:
        raise JobError("source.uri", f"the schema's `huggingface` metadata cannot be read: {error!r}",
                       "write the file again") from None
    held = features.get(layout.objects) if layout.objects else features
    return next(_names(held, layout.labels, False), [])


def _names(feature, key: str | None, is_inside: bool) -> Iterator[list[str]]:
    """Names of class labels below the key."""
    if isinstance(feature, list):  # older files write [feature] for a sequence
        for entry in feature:
            yield from _names(entry, key, is_inside)
    if isinstance(feature, dict):
        if is_inside and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
            yield feature["names"]
        for name, value in feature.items():
            yield from _names(value, key, is_inside or name == key)
