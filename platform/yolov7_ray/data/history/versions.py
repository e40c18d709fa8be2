"""The contents of a dataset that are kept, and the files that none of them names."""

import re
from collections.abc import Iterator, Sequence

from ... import storage
from ..manifest import KEPT_MANIFESTS, Manifest, kept_fingerprints, load_manifest

RECEIPTS = ".ingest"
"""Directory in a dataset, which listings leave out: those of an ingest that has not finished."""
STATES = ".rows"
"""Directory in a dataset, which listings leave out: from what the rows of each content were made."""
_SHARD_NAME = re.compile(r"^[^/]+/\d{5,}-[0-9a-f]{12}\.arrow$")


def follow(uri: str, manifest: Manifest, before: Manifest) -> None:
    """Keep the content `before`, and note in `manifest`, which is about to follow it, which that was."""
    if manifest.fingerprint == before.fingerprint:
        manifest.source["before"] = before.source.get("before")
        return
    manifest.source["before"] = before.fingerprint
    storage.write_json(storage.join(uri, KEPT_MANIFESTS, f"{before.fingerprint}.json"), before.to_json())


def kept_manifests(uri: str) -> Iterator[Manifest]:
    """The earlier contents that are kept, in order of fingerprint."""
    return (load_manifest(f"{uri}@{fingerprint}") for fingerprint in kept_fingerprints(uri))


def unnamed_files(uri: str, manifests: Sequence[Manifest]) -> list[tuple[str, int]]:
    """Path and size of the shards and states that belong to none of the manifests; no other files."""
    shards = {shard.path for manifest in manifests for shard in manifest.shards()}
    states = {f"{manifest.fingerprint}.npz" for manifest in manifests}
    return [*((info.path, info.num_bytes) for info in storage.list_files(uri)
              if _SHARD_NAME.match(info.path) and info.path not in shards),
            *((storage.join(STATES, info.path), info.num_bytes)
              for info in storage.list_files(storage.join(uri, STATES))
              if info.path not in states)]


def remove_unnamed(uri: str, manifests: Sequence[Manifest]) -> None:
    """Remove `unnamed_files`."""
    for path, _ in unnamed_files(uri, manifests):
        storage.delete(storage.join(uri, path))
