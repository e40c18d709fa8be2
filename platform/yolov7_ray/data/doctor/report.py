"""Reports of the doctor: a table in the terminal, lines of a dry run, JSON, and an HTML page."""

import os
from pathlib import Path
from typing import Any

from yolov7.architectures.family import architecture

from ... import storage
from ...errors import Unsound
from ...program import command
from ..ingest.losses import recorded, totals
from ..ingest.losses import table as losses_table
from ..manifest import DROPPED
from .examination import Examination, examine
from .finding import SEVERITIES, Finding
from .page.document import page
from .spec import DoctorSpec

PAGE, VALUES = "index.html", "doctor.json"
_IN_THE_DRY_RUN_ANYWAY = ("class missing in a split", "class without objects", "anchors do not fit")


def doctor(spec: DoctorSpec, run_name: str) -> dict[str, Any]:
    """Examine the dataset, print and write the reports; Unsound if there are errors."""
    output = spec.output or _beside(spec.dataset)
    for place in filter(None, (output, spec.json_file)):
        storage.check_access(place, write=True)
    examination = examine(spec.dataset, architecture(spec.architecture), spec.size_px)
    print(table(examination), flush=True)
    for place in write(examination, output, spec.json_file):
        shown = place if storage.is_remote(place) else Path(storage.absolute(place)).as_uri()
        print(f"report: {shown}" if place.endswith(PAGE) else f"wrote {place}", flush=True)
    errors = examination.findings.num_kinds("error")
    if errors:
        raise Unsound(spec.dataset, f"has {errors} kind{'s' * (errors > 1)} of error",
                      "what to do about each stands above, at its arrow")
    return {"dataset": spec.dataset}


def _beside(dataset: str) -> str | None:
    """Where the page of a local dataset lies, if that can be written; none is written to S3 unasked."""
    directory = storage.absolute(dataset)
    return storage.join(directory, "doctor") if not storage.is_remote(dataset) and os.access(directory, os.W_OK) else None


def write(examination: Examination, output: str | None, json_file: str | None) -> list[str]:
    """Write page and JSON where requested; returns their URIs."""
    places = []
    if output:
        places += [storage.join(output, PAGE), storage.join(output, VALUES)]
        storage.write_bytes(places[0], page(examination).encode())
        storage.write_json(places[1], examination.to_json())
    if json_file:
        places.append(json_file)
        storage.write_json(json_file, examination.to_json())
    return places


def table(examination: Examination) -> str:
    """The findings, most severe first: count, kind, an example and a remedy; and a summary."""
    splits = "; ".join(f"{name} {statistics.num_images:,} images, {statistics.num_objects:,} objects"
                       for name, statistics in examination.counted.items())
    lines = [f"{examination.uri}: {splits or 'no images'}; {len(examination.manifest.classes)} classes; "
             f"for {examination.architecture} at {examination.image_size_px} px"]
    for finding in examination.findings:
        lines += [f"  {finding.definition.severity:<8}{finding.count:>9,}  {finding.kind}{_where(finding)}",
                  f"{'':21}-> {finding.definition.remedy}"]
    found = recorded(examination.manifest)
    if found:
        lines += [f"  ingest {totals(found)}; all are listed in {storage.join(examination.uri, DROPPED)}",
                  *(f"    {line}" for line in losses_table(found))]
    kinds = [f"{examination.findings.num_kinds(severity)} kinds of {severity}" for severity in SEVERITIES]
    rate = f", {examination.num_images / examination.cpu_s:.0f} images/s per core" if examination.cpu_s else ""
    return "\n".join([*lines, f"{', '.join(kinds)}; {examination.looked_at} in {examination.elapsed_s:.1f} s{rate}"])


def _where(finding: Finding) -> str:
    return f", e.g. {finding.examples[0]}" if finding.count > 1 else f": {finding.examples[0]}"


def plan_lines(examination: Examination) -> list[tuple[str, str]]:
    """(severity, text) of each finding and (doctor, what was examined) for a dry run.

    Left out is what the dry run reports itself: classes missing in a split, and how well anchors fit.
    """
    lines = [(finding.definition.severity,
              f"{finding.count:,} x {finding.kind}{_where(finding)}; {finding.definition.remedy}")
             for finding in examination.findings
             if finding.kind not in _IN_THE_DRY_RUN_ANYWAY]
    return [("doctor", f"{examination.looked_at}; {command(f'doctor {examination.uri}')} looks at all"), *lines]
