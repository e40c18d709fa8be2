"""Keys of a doctor job."""

from typing import Literal

from pydantic import model_validator

from yolov7.architectures.family import architecture

from ...jobs.spec import URI, ArchitectureName, ImageSize, Job, check_image_size


class DoctorSpec(Job):
    """Arrow dataset -> what is wrong with it, with Ray Data."""

    kind: Literal["doctor"]
    dataset: URI
    """Arrow dataset written by an ingest job."""
    architecture: ArchitectureName = "yolov7"
    """Whose anchors are to fit the objects."""
    image_size_px: ImageSize | None = None
    """Side at which the detector will see the images. Default: the architecture's."""
    output: URI | None = None
    """Directory for a page with pictures, and JSON. Default: `doctor` in a dataset on a local disk; S3: none."""
    json_file: URI | None = None
    """Another place for the JSON."""

    @property
    def size_px(self) -> int:
        """Side at which the detector will see the images."""
        return self.image_size_px or architecture(self.architecture).default_image_size_px

    @model_validator(mode="after")
    def _check_size(self) -> "DoctorSpec":
        check_image_size("image_size_px", self.size_px, architecture(self.architecture))
        return self
