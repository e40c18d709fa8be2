"""Keys of an export-dataset job."""

from typing import Literal

from ...jobs.spec import URI, Job, Name


class ExportDatasetSpec(Job):
    """Arrow dataset -> COCO, YOLO or Pascal VOC files, with the original ids and names."""

    kind: Literal["export-dataset"]
    dataset: URI
    """Arrow dataset written by an ingest job."""
    format: Literal["coco", "yolo", "voc"] = "coco"
    """COCO holds everything; YOLO has no crowds, YOLO and VOC no areas, VOC no polygons: what is lost is counted."""
    output: URI
    """Directory or prefix for the files."""
    images: bool | Literal["link"] = True
    """False: annotations alone. link: hard links to the source's files, where these and the output are on one disk."""
    splits: list[Name] | None = None
    """Default: all."""
