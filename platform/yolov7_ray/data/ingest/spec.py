"""Keys of an ingest job."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...jobs.spec import URI, Job, Name
from ..sources.spec import ShapesSource, Source


class IngestSpec(Job):
    """Raw images and annotations -> an Arrow dataset."""

    kind: Literal["ingest"]
    source: Source = ShapesSource(format="shapes")
    """Where the raw data are, and in which format."""
    splits: dict[Name, Annotated[float, Field(gt=0, lt=1)]] | None = None
    """Split name -> share, e.g. {train: 0.8, val: 0.1, test: 0.1}: cuts a source of one split by a hash of the file
    names, stratified by class. Images stay where they are when others come, unless a share would be off by 2 %."""
    group_by: str | None = None
    """With splits: images that stay together, by a regular expression on the file name (its first group, or the whole
    match), or `directory`."""
    dataset: URI
    """Where the Arrow dataset is written."""
    classes: list[str] | dict[str, list[str]] | None = None
    """Keep just these classes, in this order, dropping objects of others; a mapping renames and merges those of the
    source, e.g. {car: [car, Car, vehicle], person: [pedestrian]}."""
    strict: bool = False
    """True: the first bad row stops the job. False: bad rows are dropped and listed beside the manifest."""
    max_loss: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the images, or of the objects, that may be dropped before the job fails with the commonest reason."""
    shard_mb: Annotated[float, Field(gt=0, le=2048)] = 128
    """Size at which a shard is closed, in MB."""
    overwrite: bool = False
    """True: an existing dataset at this URI is replaced."""

    @model_validator(mode="after")
    def _check_splits(self) -> "IngestSpec":
        if self.splits is not None and abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits: the shares sum to {sum(self.splits.values()):g}; they must sum to 1")
        if self.group_by is not None:
            if self.splits is None:
                raise ValueError("group_by: has no use without splits; give splits, e.g. {train: 0.9, val: 0.1}")
            try:
                re.compile(self.group_by)
            except re.error as error:
                raise ValueError(f"group_by: {self.group_by!r} is no regular expression ({error}); give one, or "
                                 "directory") from None
        return self
