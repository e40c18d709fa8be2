"""The doctor job."""

from typing import Any

from ...jobs.kind import JobKind, Line, Upcoming
from .spec import DoctorSpec


class Doctor(JobKind[DoctorSpec]):
    """Arrow dataset -> what is wrong with it."""

    spec = DoctorSpec
    outputs = {"dataset": "dataset"}
    example = {"dataset": "datasets/coco", "output": "doctor"}

    def run(self, spec: DoctorSpec, run_name: str) -> dict[str, Any]:
        from .report import doctor

        return doctor(spec, run_name)

    def check_inputs(self, spec: DoctorSpec, upcoming: Upcoming) -> None:
        from ..manifest import require_dataset

        require_dataset(spec.dataset, upcoming)

    def dry_run(self, spec: DoctorSpec, upcoming: Upcoming) -> list[Line]:
        from .dry_run import doctor_lines

        return doctor_lines(spec, upcoming)


KIND = Doctor()
