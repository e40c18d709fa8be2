"""Checks of dataset statistics: the manifest against itself and the counts, classes, and anchors.

C classes
"""

from collections.abc import Iterable

import numpy as np

from ..manifest import Manifest, Split
from .finding import Case, Findings
from .object_checks import Statistics

RARE_PART = 0.01
"""A class with less than this fraction of the most frequent class's objects is rare."""
MIN_OBJECTS_FOR_MIX = 100
MIN_MIX_DISTANCE = 0.2
"""Fraction of objects that would have to change class for two splits to agree, beyond chance."""
MIN_RECALL = 0.98
"""Best possible recall below which anchors do not fit."""


def examine_manifest(manifest: Manifest, findings: Findings) -> None:
    """Check the manifest alone, without opening a shard."""
    _find_ambiguous_classes(manifest, findings)
    for name, split in manifest.splits.items():
        if not split.num_rows:
            findings.add("split without images", Case(name))
        elif not split.num_objects:
            findings.add("split without objects", Case(name, detail=f"{split.num_rows} images"))
        _compare(findings, name, "its shards hold", "images", sum(s.num_rows for s in split.shards), split.num_rows)
        _compare(findings, name, "its classes have", "objects", sum(split.objects_per_class), split.num_objects)
        _compare(findings, name, "it counts", "classes", len(split.objects_per_class), len(manifest.classes))
    examine_classes(manifest.classes, {name: split.objects_per_class for name, split in manifest.splits.items()},
                    findings)


def _find_ambiguous_classes(manifest: Manifest, findings: Findings) -> None:
    for what, values in (("name", manifest.classes), ("id", manifest.source_ids)):
        repeated = sorted({str(value) for value in values if values.count(value) > 1})
        if repeated:
            findings.add("ambiguous classes", Case("dataset", detail=f"several have the {what} {', '.join(repeated)}"))
    if len(manifest.classes) != len(manifest.source_ids):
        findings.add("ambiguous classes", Case("dataset", detail=f"{len(manifest.classes)} names, "
                                                                 f"{len(manifest.source_ids)} ids"))


def _compare(findings: Findings, split: str, claim: str, unit: str, found: int, expected: int) -> None:
    if found != expected:
        findings.add("counts differ from the manifest",
                     Case(split, detail=f"{claim} {found:,} {unit}, the manifest says {expected:,}"))


def compare_counts(manifest: Manifest, counted: dict[str, Statistics], findings: Findings) -> None:
    """Compare the counts over all shards of a split to the manifest."""
    for name, statistics in counted.items():
        split: Split = manifest.splits[name]
        _compare(findings, name, "it has", "objects", statistics.num_objects, split.num_objects)
        for label, (found, expected) in enumerate(zip(statistics.objects_per_class, split.objects_per_class)):
            if found != expected and label < len(manifest.classes):
                _compare(findings, name, "it has", f"objects of '{manifest.classes[label]}'", found, expected)


def examine_classes(classes: tuple[str, ...], per_split: dict[str, tuple[int, ...]], findings: Findings) -> None:
    """Find missing and rare classes, and differing class mixes; splits without objects are left out."""
    counts = {name: np.asarray(values) for name, values in per_split.items()
              if sum(values) and len(values) == len(classes)}
    if not counts:
        return
    everywhere = sum(counts.values())
    for label in np.flatnonzero(everywhere == 0):
        findings.add("class without objects", Case("dataset", detail=f"'{classes[label]}'"))
    for name, values in counts.items():
        for label in np.flatnonzero((values == 0) & (everywhere > 0)):
            findings.add("class missing in a split",
                         Case(name, detail=f"'{classes[label]}' has {everywhere[label]:,} objects in other splits"))
        most = int(values.argmax())
        rare = np.flatnonzero((values > 0) & (values < RARE_PART * values[most]))
        findings.add_all("class imbalance", name, len(rare), (
            Case(name, detail=f"'{classes[label]}' {values[label]:,}, '{classes[most]}' {values[most]:,} objects")
            for label in rare[values[rare].argsort(kind="stable")]))
    first, *others = counts
    for name in others:
        _compare_mix(classes, (first, counts[first]), (name, counts[name]), findings)


def _compare_mix(classes: tuple[str, ...], one: tuple[str, np.ndarray], other: tuple[str, np.ndarray],
                 findings: Findings) -> None:
    """Add a finding if the class shares of two splits, (C,) counts each, differ by more than chance explains.

    The distance is the total variation distance; two samples of the same mix differ by about the noise below.
    """
    totals = np.array([one[1].sum(), other[1].sum()])
    if totals.min() < MIN_OBJECTS_FOR_MIX:
        return
    difference = one[1] / totals[0] - other[1] / totals[1]
    noise = 0.4 * np.sqrt(len(classes) * (1 / totals).sum())
    distance = np.abs(difference).sum() / 2
    if distance > MIN_MIX_DISTANCE + noise:
        most = int(np.abs(difference).argmax())
        shares = [f"{counts[most] / counts.sum():.0%} of {name}" for name, counts in (one, other)]
        findings.add("class mix differs", Case(other[0], detail=f"'{classes[most]}' is {' and '.join(shares)}; "
                                                                f"{distance:.0%} of the objects are of other classes"))


def examine_anchors(counted: Iterable[tuple[str, Statistics]], findings: Findings) -> None:
    """Add the objects that no anchor fits, if they are many: training cannot learn them."""
    for name, statistics in counted:
        missed = statistics.num_measured - statistics.num_fitting
        if statistics.num_measured and missed > (1 - MIN_RECALL) * statistics.num_measured:
            recall = statistics.num_fitting / statistics.num_measured
            findings.add("anchors do not fit", Case(name, detail=f"best possible recall {recall:.3f}"), missed)
