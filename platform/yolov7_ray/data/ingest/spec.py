"""Keys of an ingest job."""

from typing import Annotated, Literal

from pydantic import Field

from ...jobs.spec import URI, Job
from ..sources.spec import ShapesSource, Source


class IngestSpec(Job):
    """Raw images and annotations -> an Arrow dataset."""

    kind: Literal["ingest"]
    source: Source = ShapesSource(format="shapes")
    """Where the raw data are, and in which format."""
    dataset: URI
    """Where the Arrow dataset is written."""
    classes: list[str] | None = None
    """Keep just these classes, in this order; objects of others are dropped and reported."""
    strict: bool = False
    """True: the first bad row stops the job. False: bad rows are dropped and listed beside the manifest."""
    max_loss: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the images, or of the objects, that may be dropped before the job fails with the commonest reason."""
    shard_mb: Annotated[float, Field(gt=0, le=2048)] = 128
    """Size at which a shard is closed, in MB."""
    overwrite: bool = False
    """True: an existing dataset at this URI is replaced."""
