"""What an ingest lost or had to change: counted by reason, worst first, with an example, and bounded."""

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import JobError

EXAMPLE_CHARACTERS = 160


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
        return f"{self.count:,} x {self.reason}{what}, e.g. {self.example}"


def losses(records: Iterable[dict]) -> list[Loss]:
    """The losses in records as of `problem_record` and `note`: of images, of objects, mere changes; worst first."""
    found: dict[tuple, Loss] = {}
    for record in records:
        key = record["reason"], record["dropped"]
        if key not in found:
            found[key] = Loss(*key, _example(record))
        found[key].count += record.get("count", 1)
    return sorted(found.values(), key=lambda loss: (("image", "object", None).index(loss.dropped), -loss.count))


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
