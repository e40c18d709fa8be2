"""Keys of an ingest job."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...jobs.spec import URI, Job, Name
from ..sources.spec import ShapesSource, Source


class IngestSpec(Job):
    """Raw images and annotations -> an Arrow dataset."""

    kind: Literal["ingest"]
    source: Source | None = ShapesSource(format="shapes")
    """Where the raw data are, and in which format."""
    sources: Annotated[list[Source], Field(min_length=1)] | None = None
    """Instead of source: several, joined in this order; classes by name. Images without labels: format background."""
    splits: dict[Name, Annotated[float, Field(gt=0, lt=1)]] | None = None
    """Split name -> share, e.g. {train: 0.8, val: 0.1, test: 0.1}: cuts a source of one split by a hash of the file
    names, stratified by class. Only as many images leave the split of their hash as bring each class of 50 objects or more
    within 2 points of its share, where whole images allow; when others come, most stay where they are."""
    pool: bool = False
    """With splits: True: a source that has several splits already is pooled, and cut anew."""
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

    @model_validator(mode="before")
    @classmethod
    def _one_of_source_and_sources(cls, job: Any) -> Any:
        if not isinstance(job, dict) or job.get("sources") is None:
            return job
        if job.get("source") is not None:
            raise ValueError("sources: source is given too; give one of the two")
        return job | {"source": None}

    @model_validator(mode="after")
    def _check_sources(self) -> "IngestSpec":
        if self.source is None and self.sources is None:
            raise ValueError("source: is missing; give it, or sources")
        names = [source.name for source in self.sources or () if source.name]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"sources: several are called '{repeated[0]}'; give each its own name")
        if self.source is not None and self.source.name:
            raise ValueError("source.name: has no use with one source; leave it out")
        return self

    @model_validator(mode="after")
    def _check_splits(self) -> "IngestSpec":
        if self.splits is not None and abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits: the shares sum to {sum(self.splits.values()):g}; they must sum to 1")
        if self.pool and self.splits is None:
            raise ValueError("pool: has no use without splits; give splits, e.g. {train: 0.9, val: 0.1}")
        if self.group_by is not None:
            if self.splits is None:
                raise ValueError("group_by: has no use without splits; give splits, e.g. {train: 0.9, val: 0.1}")
            try:
                re.compile(self.group_by)
            except re.error as error:
                raise ValueError(f"group_by: {self.group_by!r} is no regular expression ({error}); give one, or "
                                 "directory") from None
        return self
