"""What an ingest lost or had to change: counted by reason, worst first, with an example, and bounded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ... import storage
from ...cluster.resources import plural
from ...errors import JobError
from ..manifest import DROPPED, Manifest
from ..sources.item import note

EXAMPLE_CHARACTERS = 160
WITH_IMAGE = "object of an image lost to: "
MAX_LINES = 8
"""Kinds of loss that a dry run lists."""


@dataclass(slots=True)
class Loss:
    """All records of one reason."""

    reason: str
    dropped: str | None
    """What was dropped each time, `image` or `object`; None: nothing was."""
    example: str
    count: int = 0

    def __str__(self) -> str:
        what = f" ({self.dropped}{'s' if self.count != 1 else ''} dropped)" if self.dropped else ""
        example = f", e.g. {self.example}" if self.example else ""
        return f"{self.count:,} x {self.reason}{what}{example}"


def losses(records: Iterable[dict]) -> list[Loss]:
    """The losses in records as of `problem_record` and `note`: of images, of objects, mere changes; worst first.

    The objects of a lost image are lost objects of their own reason.
    """
    found: dict[tuple, Loss] = {}

    def add(key: tuple[str, str | None], count: int, record: dict) -> None:
        if key not in found:
            found[key] = Loss(*key, _example(record))
        found[key].count += count

    for record in records:
        add((record["reason"], record["dropped"]), record.get("count", 1), record)
        if record.get("objects"):
            add((f"{WITH_IMAGE}{record['reason']}", "object"), record["objects"], record)
    return sorted(found.values(), key=lambda loss: (("image", "object", None).index(loss.dropped), -loss.count))


def class_notes(wanted: list[str] | dict[str, list[str]] | None, num_objects: Sequence[int]) -> list[dict]:
    """A record for each class that `classes` of the job renames or merges, with the objects that the dataset has."""
    if not isinstance(wanted, dict):
        return []
    return [note("", f"classes merged: {', '.join(names)} -> {name}" if len(names) > 1 else
                 f"class renamed: {names[0]} -> {name}", count, "") | {"detail": ""}
            for (name, names), count in zip(wanted.items(), num_objects, strict=True) if names != [name]]


def recorded(manifest: Manifest) -> list[Loss]:
    """The losses of the dataset's ingest; those of older manifests have reason and count alone."""
    if manifest.losses or not manifest.dropped:
        return [Loss(**loss) for loss in manifest.losses]
    return [Loss(reason, "image or object", "", count)
            for reason, count in sorted(manifest.dropped.items(), key=lambda entry: -entry[1])]


def table(found: list[Loss]) -> list[str]:
    """A line for each kind, the counts aligned."""
    width = max((len(f"{loss.count:,}") for loss in found), default=0)
    return [" " * (width - len(f"{loss.count:,}")) + str(loss) for loss in found]


def loss_lines(uri: str, manifest: Manifest) -> list[tuple[str, str]]:
    """What the dataset's ingest lost, for a dry run; empty if nothing."""
    found = recorded(manifest)
    if not found:
        return []
    left = [f"and {len(found) - MAX_LINES} more kinds"] if len(found) > MAX_LINES else []
    return [("ingest", f"{totals(found)}; all are listed in {storage.join(uri, DROPPED)}"),
            *(("", line) for line in [*table(found[:MAX_LINES]), *left])]


def totals(found: list[Loss]) -> str:
    """``dropped 3 images and 60 objects, changed or noted 2 others``."""
    count = {what: sum(loss.count for loss in found if loss.dropped == what) for what in {loss.dropped for loss in found}}
    noted = count.pop(None, 0)
    parts = [plural(number, what) for what, number in sorted(count.items())]
    dropped = f"dropped {' and '.join(parts)}" if parts else "dropped nothing"
    return dropped + (f"; {plural(noted, 'thing')} changed or left aside" if noted else "")


def _example(record: dict) -> str:
    texts = [record["file_name"], record["detail"].removeprefix("e.g. ")]
    if record["file_name"] and record["file_name"] in record["detail"]:
        texts = texts[1:]
    text = ": ".join(filter(None, [record["split"], *texts]))
    return text if len(text) <= EXAMPLE_CHARACTERS else text[:EXAMPLE_CHARACTERS] + "…"


def check_losses(where: str, found: list[Loss], kept: dict[str, int], max_loss: float, listing: str) -> None:
    """JobError with the commonest reason and an example if more than `max_loss` of the images or objects are lost.

    `kept` counts the images and objects that are left; one that is missing there is not judged.
    """
    for what, num_kept in kept.items():
        worst = [loss for loss in found if loss.dropped == what]
        num_lost = sum(loss.count for loss in worst)
        if not num_lost or num_lost <= max_loss * (num_lost + num_kept):
            continue
        share = f"all {num_lost:,}" if not num_kept else f"{num_lost:,} of {num_lost + num_kept:,}"
        others = f"; also {', '.join(f'{loss.count:,} x {loss.reason}' for loss in worst[1:4])}" if worst[1:] else ""
        raise JobError(where, f"{share} {what}s would be lost, most to: {worst[0].reason} ({worst[0].count:,}, "
                              f"e.g. {worst[0].example}){others}{listing}",
                       f"mend the source, or accept the loss with max_loss: {_enough(num_lost, num_kept)}")


def _enough(num_lost: int, num_kept: int) -> float:
    """The least share, in hundredths, that the loss does not exceed."""
    return min(1.0, -(-100 * num_lost // (num_lost + num_kept)) / 100)
