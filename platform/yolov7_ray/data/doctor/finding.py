"""The catalogue of finding kinds, and the findings of an examination."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""error: training or evaluation would fail or be wrong; warning: it may be; note: good to know."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

MAX_EXAMPLES = 6
"""Cases of a kind that are kept as examples; all are counted."""


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One kind of fault, and what to do about it."""

    kind: str
    severity: Severity
    remedy: str


_AGAIN = "repair the source and ingest again"
_WRITE_AGAIN = "run the ingest job again with `overwrite: true`"
_REMOVE = "remove the image from the source, or fetch it anew, and ingest again"
_MOVE = "keep it in one split only, or the AP tells what was memorised"

CATALOGUE: dict[str, FindingKind] = {definition.kind: definition for definition in (
    # the manifest and its files
    FindingKind("missing shard", "error", "run the ingest job again: it completes the dataset"),
    FindingKind("truncated shard", "error", _WRITE_AGAIN),
    FindingKind("wrong checksum", "error", _WRITE_AGAIN),
    FindingKind("unreadable shard", "error", _WRITE_AGAIN),
    FindingKind("counts differ from the manifest", "error", _WRITE_AGAIN),
    FindingKind("ambiguous classes", "error", "give every class a name and an id of its own and ingest again"),
    FindingKind("split without images", "error", "ingest some, or leave the split out"),
    FindingKind("split without objects", "error", "check the annotation file of this split and ingest again"),
    # images
    FindingKind("undecodable image", "error", _REMOVE),
    FindingKind("truncated image", "error", _REMOVE),
    FindingKind("size differs from the record", "error", "ingest again, so that boxes fit the pixels"),
    FindingKind("duplicate image id", "error", "number the images of a split apart and ingest again"),
    FindingKind("image in two splits", "error", _MOVE),
    FindingKind("damaged image", "warning", "look at it: the decoder went on over faulty data; fetch it anew"),
    FindingKind("turned by EXIF", "note", "fine: it is used as displayed, as its boxes are; look at one if the "
                                          "annotation tool ignores EXIF"),
    FindingKind("CMYK image", "warning", "convert it to RGB: its colours depend on the decoder"),
    FindingKind("16-bit image", "warning", "scale it to 8 bits yourself: all but the upper 8 are dropped"),
    FindingKind("animated image", "warning", "store its frames as images: only the first is used"),
    FindingKind("near-duplicate in two splits", "warning", _MOVE),
    FindingKind("duplicate image", "warning", "keep one of them: the copies only weigh it more"),
    FindingKind("near-duplicate image", "note", "keep one of them, or see that they stay in one split"),
    FindingKind("image without objects", "note", "fine as background; label it where it is not"),
    # objects
    FindingKind("uneven columns", "error", "write one box, label, iscrowd, area and polygon entry per object"),
    FindingKind("label out of range", "error", "labels are positions in the manifest's classes; ingest maps them"),
    FindingKind("box is not finite", "error", _AGAIN),
    FindingKind("box without area", "error", "boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2: " + _AGAIN),
    FindingKind("box outside the image", "error", "ingest clips boxes to the image; write the dataset with it"),
    FindingKind("duplicate box", "warning", "keep one: the detector is fined for finding the object once"),
    FindingKind("tiny object", "warning", "raise data.image_size_px: training drops objects of at most 2 px on a side"),
    FindingKind("elongated object", "warning", "training drops objects 20 times as long as wide; split such objects"),
    # classes and anchors
    FindingKind("class missing in a split", "warning", "move images with it there: it is not learnt, or not measured"),
    FindingKind("class without objects", "warning", "leave it out with `classes` of the ingest job"),
    FindingKind("class mix differs", "warning",
                "check that both splits number their classes alike, and split at random"),
    FindingKind("class imbalance", "warning", "gather more of the rare classes, or set data.image_weights: true"),
    FindingKind("anchors do not fit", "warning", "set model.anchors: auto, or another data.image_size_px"),
)}


@dataclass(frozen=True, slots=True)
class Case:
    """One occurrence, as an example of its kind."""

    split: str
    index: int | None = None
    """Position of the image in its split; None: the case is not a single image."""
    file_name: str = ""
    detail: str = ""
    box_xyxy: tuple[float, float, float, float] | None = None
    """The object's box, if it can be drawn."""
    twin: tuple[str, int] | None = None
    """Split and index of the image that this one duplicates."""

    def __str__(self) -> str:
        place = self.split if self.index is None else f"{self.split} {self.index} ({self.file_name})"
        return ": ".join(filter(None, (place, self.detail)))

    @classmethod
    def from_json(cls, values: dict) -> "Case":
        """Inverse of `asdict`."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


@dataclass(slots=True)
class Finding:
    """All occurrences of one kind: an exact count per split, and the first few as examples."""

    kind: str
    counts: Counter = field(default_factory=Counter)
    examples: list[Case] = field(default_factory=list)

    @property
    def definition(self) -> FindingKind:
        return CATALOGUE[self.kind]

    @property
    def count(self) -> int:
        return sum(self.counts.values())


class Findings:
    """Findings by kind; those of many shards are merged in the order of the dataset."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Finding] = {}

    def add(self, kind: str, case: Case, count: int = 1) -> None:
        """Count `count` occurrences, with one case as their example."""
        self.add_all(kind, case.split, count, [case])

    def add_all(self, kind: str, split: str, count: int, cases: Iterable[Case]) -> None:
        """Count occurrences in one split; `cases` is read only until there are `MAX_EXAMPLES`."""
        if not count:
            return
        finding = self._by_kind.setdefault(kind, Finding(CATALOGUE[kind].kind))
        finding.counts[split] += count
        free = MAX_EXAMPLES - len(finding.examples)
        finding.examples += [case for _, case in zip(range(free), cases)]

    def merge(self, other: "Findings") -> None:
        """Add the findings of another examination; its examples come last."""
        for finding in other._by_kind.values():
            own = self._by_kind.setdefault(finding.kind, Finding(finding.kind))
            own.counts += finding.counts
            own.examples += finding.examples[:MAX_EXAMPLES - len(own.examples)]

    def __iter__(self):
        """Most severe first, then in the order of the catalogue."""
        order = list(CATALOGUE)
        return iter(sorted(self._by_kind.values(), key=lambda finding: (
            SEVERITIES.index(finding.definition.severity), order.index(finding.kind))))

    def __contains__(self, kind: str) -> bool:
        return kind in self._by_kind

    def __getitem__(self, kind: str) -> Finding:
        return self._by_kind[kind]

    def num_kinds(self, severity: Severity) -> int:
        """How many kinds of this severity were found."""
        return sum(finding.definition.severity == severity for finding in self)

    def to_json(self) -> list[dict]:
        """Plain values, most severe first."""
        return [{**asdict(finding.definition), "count": finding.count, "counts": dict(finding.counts),
                 "examples": [asdict(case) for case in finding.examples]} for finding in self]

    @classmethod
    def from_json(cls, values: list[dict]) -> "Findings":
        """Inverse of `to_json`."""
        findings = cls()
        for entry in values:
            cases = [Case.from_json(case) for case in entry["examples"]]
            findings._by_kind[entry["kind"]] = Finding(entry["kind"], Counter(entry["counts"]), cases)
        return findings
