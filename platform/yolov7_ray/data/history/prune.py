"""Removing the earlier contents of a dataset, and the files that only they need."""

from ... import storage
from ...cluster.resources import plural
from ...errors import JobError
from ..manifest import KEPT_MANIFESTS, kept_fingerprints, load_manifest
from .versions import RECEIPTS, kept_manifests, remove_unnamed, unnamed_files


def prune(uri: str, keep: list[str], confirmed: bool) -> list[str]:
    """What goes, in words; it goes only when `confirmed`. `keep`: beginnings of fingerprints that stay.

    The manifests go first, so that none ever names a shard that is gone. JobError if `keep` names none,
    or an ingest is not finished, whose shards no manifest names yet.
    """
    uri = storage.absolute(uri)
    current = load_manifest(uri)
    if storage.list_files(storage.join(uri, RECEIPTS)):
        raise JobError(uri, "an ingest into it is under way, or was interrupted",
                       "wait for its end, or run that job again: then its files have their place")
    kept = [manifest for manifest in kept_manifests(uri) if manifest.fingerprint != current.fingerprint]
    unknown = [prefix for prefix in keep
               if not any(manifest.fingerprint.startswith(prefix) for manifest in [current, *kept])]
    if unknown:
        known = ", ".join(manifest.fingerprint[:12] for manifest in [current, *kept])
        raise JobError("--keep", f"no kept fingerprint begins with {unknown[0]}", f"the dataset has {known}")
    stay = [manifest for manifest in kept if manifest.fingerprint.startswith(tuple(keep))] if keep else []
    staying = {manifest.fingerprint for manifest in stay}
    go = [fingerprint for fingerprint in kept_fingerprints(uri) if fingerprint not in staying]
    files = unnamed_files(uri, [current, *stay])
    told = [f"{fingerprint[:12]} can be read no more" for fingerprint in go if fingerprint != current.fingerprint]
    told.append(f"{plural(len(files), 'file')}, {sum(num_bytes for _, num_bytes in files) / 1e6:,.1f} MB, "
                f"{'removed' if confirmed else 'would be removed: give --yes'}; "
                f"{', '.join(manifest.fingerprint[:12] for manifest in [current, *stay])} stays")
    if confirmed:
        for fingerprint in go:
            storage.delete(storage.join(uri, KEPT_MANIFESTS, f"{fingerprint}.json"))
        remove_unnamed(uri, [current, *stay])
    return told
