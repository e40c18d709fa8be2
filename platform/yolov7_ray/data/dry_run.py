"""Dry run lines about a dataset."""

from ..errors import JobError
from ..jobs.kind import Line, Upcoming
from .ingest.losses import loss_lines
from .manifest import Manifest, load_manifest


def dataset_lines(uri: str, splits: tuple[str, ...],
                  upcoming: Upcoming) -> tuple[dict[str, int], tuple[str, ...] | None, list[Line]]:
    """Images per split, classes (None: not known yet) and the lines about a dataset; also checks it."""
    expected = upcoming.dataset(uri)
    if expected is not None:
        missing = [split for split in splits if expected.splits and split not in expected.splits]
        if missing:
            raise JobError("dataset", f"step that ingests {uri} makes no split '{missing[0]}'",
                           f"it makes {', '.join(expected.splits)}")
        return expected.num_images, expected.classes, [("dataset", f"{expected.uri}, made by an earlier step")]
    if upcoming.makes(uri):
        return {}, None, [("dataset", f"{uri}, made by an earlier step")]
    if uri in upcoming.unreachable:
        return {}, None, [("dataset", f"cannot be reached: {upcoming.unreachable[uri]}")]
    manifest = load_manifest(uri)
    images = {split: manifest.split(split).num_rows for split in splits}
    empty = [split for split, count in images.items() if not count]
    if empty:
        raise JobError(f"{uri}: split '{empty[0]}'", "has no images", "ingest some, or name another split")
    listed = ", ".join(manifest.classes[:8]) + (", …" if len(manifest.classes) > 8 else "")
    lines = [("dataset", f"{uri}: {in_words(images)}; {len(manifest.classes)} classes ({listed})")]
    return images, manifest.classes, [*lines, *_absent_classes(manifest, splits), *loss_lines(uri, manifest)]


def in_words(images: dict[str, int]) -> str:
    """``train 100 images, val 20 images``."""
    return ", ".join(f"{split} {count} images" for split, count in images.items())


def _absent_classes(manifest: Manifest, splits: tuple[str, ...]) -> list[Line]:
    """A warning for each split that has classes without objects."""
    lines = []
    for split in splits:
        counts = manifest.split(split).objects_per_class
        absent = [name for name, count in zip(manifest.classes, counts, strict=True) if count == 0]
        if absent:
            listed = ", ".join(f"'{name}'" for name in absent[:10]) + (", …" if len(absent) > 10 else "")
            lines.append(("warning", f"split '{split}' has no object of {listed}"))
    return lines
