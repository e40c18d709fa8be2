"""What the doctor says: a table in the terminal, lines of a dry run, JSON, and a page."""

from yolov7.architectures import architecture

from ... import storage
from ...errors import JobError
from ...session import start_ray
from ..schema import load_manifest
from .examination import Examination, examine
from .page import page
from .symptom import SEVERITIES, Finding

PAGE, VALUES = "index.html", "doctor.json"
_TOLD_BY_THE_PLAN = ("class missing in a split", "class without objects", "anchors do not fit")


def doctor(uri: str, architecture_name: str, image_size_px: int | None, output: str | None,
           json_file: str | None) -> bool:
    """Examine the dataset at `uri` on a Ray of its own, print and write the reports; whether there are no errors.

    `output` is a directory for the page and the JSON, `json_file` one more place for the JSON; both may lie in S3.
    """
    try:
        built = architecture(architecture_name)
    except ValueError as error:
        raise JobError("--architecture", str(error).removeprefix("architecture ")) from None
    size_px, stride = image_size_px or built.default_image_size_px, built.strides[-1]
    if size_px < stride or size_px % stride:
        raise JobError("--image-size", f"{size_px} is not a multiple of {built.name}'s largest stride {stride}",
                       f"choose e.g. {max(1, size_px // stride) * stride}")
    for place in filter(None, (output, json_file)):
        storage.check_access(place, write=True)
    load_manifest(uri)  # before Ray is started for nothing
    with start_ray():
        examination = examine(uri, built, size_px)
    print(table(examination), flush=True)
    for place in write(examination, output, json_file):
        print(f"wrote {place}", flush=True)
    return not examination.findings.num_kinds("error")


def write(examination: Examination, output: str | None, json_file: str | None) -> list[str]:
    """Write page and JSON where they are wanted; their places."""
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
    """The findings, worst first: how many of what, an example, a remedy; and the sum."""
    splits = "; ".join(f"{name} {census.num_images:,} images, {census.num_objects:,} objects"
                       for name, census in examination.counted.items())
    lines = [f"{examination.uri}: {splits or 'no images'}; {len(examination.manifest.classes)} classes; "
             f"for {examination.architecture} at {examination.image_size_px} px"]
    for finding in examination.findings:
        lines += [f"  {finding.symptom.severity:<8}{finding.count:>9,}  {finding.kind}{_where(finding)}",
                  f"{'':21}-> {finding.symptom.remedy}"]
    kinds = [f"{examination.findings.num_kinds(severity)} kinds of {severity}" for severity in SEVERITIES]
    rate = f", {examination.num_images / examination.cpu_s:.0f} images/s per core" if examination.cpu_s else ""
    return "\n".join([*lines, f"{', '.join(kinds)}; {examination.looked_at} in {examination.elapsed_s:.1f} s{rate}"])


def _where(finding: Finding) -> str:
    return f", e.g. {finding.examples[0]}" if finding.count > 1 else f": {finding.examples[0]}"


def plan_lines(examination: Examination) -> list[tuple[str, str]]:
    """(severity, text) of each finding and (doctor, what was looked at) for a dry run.

    What the plan tells itself is left out: classes that a split lacks, and how anchors fit.
    """
    lines = [(finding.symptom.severity,
              f"{finding.count:,} x {finding.kind}{_where(finding)}; {finding.symptom.remedy}")
             for finding in examination.findings
             if finding.kind not in _TOLD_BY_THE_PLAN]
    return [("doctor", f"{examination.looked_at}; python submit.py doctor {examination.uri} looks at all"), *lines]
