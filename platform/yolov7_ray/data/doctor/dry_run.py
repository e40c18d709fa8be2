"""Dry run of a doctor job."""

from yolov7.architectures.family import architecture

from ...jobs.kind import Line, Upcoming
from ..dry_run import dataset_lines
from ..manifest import load_manifest
from .report import plan_lines
from .sample_check import sample_check
from .spec import DoctorSpec


def doctor_lines(spec: DoctorSpec, upcoming: Upcoming) -> list[Line]:
    """Lines about the detector, the dataset, and the findings of a sample check."""
    detector = ("detector", f"{spec.architecture} at {spec.size_px} px")
    if upcoming.makes(spec.dataset):
        return [detector, *dataset_lines(spec.dataset, (), upcoming)[2]]
    splits = load_manifest(spec.dataset).splits
    filled = tuple(name for name, split in splits.items() if split.num_rows)  # the doctor reports empty splits
    seen = sample_check(spec.dataset, splits, architecture(spec.architecture), spec.size_px)
    return [detector, *dataset_lines(spec.dataset, filled, upcoming)[2], *plan_lines(seen)]
