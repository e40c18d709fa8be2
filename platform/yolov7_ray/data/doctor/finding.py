"""What can be wrong with a dataset: the catalogue of symptoms, and the findings of an examination."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""error: training or evaluation would fail or be wrong; warning: it may be; note: good to know."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

MAX_EXAMPLES = 6
"""Cases of a kind that are told one by one; all are counted."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """One kind of fault, and what to do about it."""

    kind: str
    severity: Severity
    remedy: str


_AGAIN = "repair the source and ingest again"
_WRITE_AGAIN = "run the ingest job again with `overwrite: true`"
_REMOVE = "remove the image from the source, or fetch it anew, and ingest again"
_MOVE = "keep it in one split only, or the AP tells what was memorised"

CATALOGUE: dict[str, Symptom] = {symptom.kind: symptom for symptom in (
    # the manifest and its files
    Symptom("missing shard", "error", "run the ingest job again: it completes the dataset"),
    Symptom("truncated shard", "error", _WRITE_AGAIN),
    Symptom("wrong checksum", "error", _WRITE_AGAIN),
    Symptom("unreadable shard", "error", _WRITE_AGAIN),
    Symptom("counts differ from the manifest", "error", _WRITE_AGAIN),
    Symptom("ambiguous classes", "error", "give every class a name and an id of its own and ingest again"),
    Symptom("split without images", "error", "ingest some, or leave the split out"),
    Symptom("split without objects", "error", "check the annotation file of this split and ingest again"),
    # images
    Symptom("undecodable image", "error", _REMOVE),
    Symptom("truncated image", "error", _REMOVE),
    Symptom("size differs from the record", "error", "ingest again, so that boxes fit the pixels"),
    Symptom("duplicate image id", "error", "number the images of a split apart and ingest again"),
    Symptom("image in two splits", "error", _MOVE),
    Symptom("damaged image", "warning", "look at it: the decoder went on over faulty data; fetch it anew"),
    Symptom("turned by EXIF", "warning", "turn the pixels and drop the tag, or be sure that boxes are those of the "
                                         "stored pixels, which are used unturned"),
    Symptom("CMYK image", "warning", "convert it to RGB: its colours depend on the decoder"),
    Symptom("16-bit image", "warning", "scale it to 8 bits yourself: all but the upper 8 are dropped"),
    Symptom("animated image", "warning", "store its frames as images: only the first is used"),
    Symptom("near-duplicate in two splits", "warning", _MOVE),
    Symptom("duplicate image", "warning", "keep one of them: the copies only weigh it more"),
    Symptom("near-duplicate image", "note", "keep one of them, or see that they stay in one split"),
    Symptom("image without objects", "note", "fine as background; label it where it is not"),
    # objects
    Symptom("uneven columns", "error", "write one box, label, iscrowd, area and polygon entry per object"),
    Symptom("label out of range", "error", "labels are positions in the manifest's classes; ingest maps them"),
    Symptom("box is not finite", "error", _AGAIN),
    Symptom("box without area", "error", "boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2: " + _AGAIN),
    Symptom("box outside the image", "error", "ingest clips boxes to the image; write the dataset with it"),
    Symptom("duplicate box", "warning", "keep one: the detector is fined for finding the object once"),
    Symptom("tiny object", "warning", "raise data.image_size_px: training drops objects of at most 2 px on a side"),
    Symptom("elongated object", "warning", "training drops objects 20 times as long as wide; split such objects"),
    # classes and anchors
    Symptom("class missing in a split", "warning", "move images with it there: it is not learnt, or not measured"),
    Symptom("class without objects", "warning", "leave it out with `classes` of the ingest job"),
    Symptom("class mix differs", "warning", "check that both splits number their classes alike, and split at random"),
    Symptom("class imbalance", "warning", "gather more of the rare classes, or set data.image_weights: true"),
    Symptom("anchors do not fit", "warning", "set model.anchors: auto, or another data.image_size_px"),
)}


@dataclass(frozen=True, slots=True)
class Case:
    """One occurrence, as an example of its kind."""

    split: str
    index: int | None = None
    """Position of the image in its split; None: the case is no single image."""
    file_name: str = ""
    detail: str = ""
    box_xyxy: tuple[float, float, float, float] | None = None
    """The object, where it is one that can be drawn."""
    twin: tuple[str, int] | None = None
    """Split and index of the image that this one repeats."""

    def __str__(self) -> str:
        place = self.split if self.index is None else f"{self.split} {self.index} ({self.file_name})"
        return ": ".join(filter(None, (place, self.detail)))


@dataclass(slots=True)
class Finding:
    """All occurrences of one kind: an exact count per split, and the first few as examples."""

    kind: str
    counts: Counter = field(default_factory=Counter)
    examples: list[Case] = field(default_factory=list)

    @property
    def symptom(self) -> Symptom:
        return CATALOGUE[self.kind]

    @property
    def count(self) -> int:
        return sum(self.counts.values())


class Findings:
    """Findings by kind; those of many shards are merged in the order of the dataset."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Finding] = {}

    def add(self, kind: str, case: Case, count: int = 1) -> None:
        """Count an occurrence; `count` more where one case stands for several."""
        self.add_all(kind, case.split, count, [case])

    def add_all(self, kind: str, split: str, count: int, cases: Iterable[Case]) -> None:
        """Count many of one split; `cases` is read no further than there is room for examples."""
        if not count:
            return
        finding = self._by_kind.setdefault(kind, Finding(CATALOGUE[kind].kind))
        finding.counts[split] += count
        room = MAX_EXAMPLES - len(finding.examples)
        finding.examples += [case for _, case in zip(range(room), cases)]

    def merge(self, other: "Findings") -> None:
        """Add another examination's, whose examples come after those here."""
        for finding in other._by_kind.values():
            mine = self._by_kind.setdefault(finding.kind, Finding(finding.kind))
            mine.counts += finding.counts
            mine.examples += finding.examples[:MAX_EXAMPLES - len(mine.examples)]

    def __iter__(self):
        """Worst first; equals in the order of the catalogue."""
        order = list(CATALOGUE)
        return iter(sorted(self._by_kind.values(), key=lambda finding: (
            SEVERITIES.index(finding.symptom.severity), order.index(finding.kind))))

    def __contains__(self, kind: str) -> bool:
        return kind in self._by_kind

    def __getitem__(self, kind: str) -> Finding:
        return self._by_kind[kind]

    def num_kinds(self, severity: Severity) -> int:
        """How many kinds of this severity were found."""
        return sum(finding.symptom.severity == severity for finding in self)

    def to_json(self) -> list[dict]:
        """Plain values, worst first."""
        return [{**asdict(finding.symptom), "count": finding.count, "counts": dict(finding.counts),
                 "examples": [asdict(case) for case in finding.examples]} for finding in self]

    @classmethod
    def from_json(cls, values: list[dict]) -> "Findings":
        """Inverse of `to_json`."""
        findings = cls()
        for entry in values:
            cases = [Case(**{key: tuple(value) if isinstance(value, list) else value for key, value in case.items()})
                     for case in entry["examples"]]
            findings._by_kind[entry["kind"]] = Finding(entry["kind"], Counter(entry["counts"]), cases)
        return findings
