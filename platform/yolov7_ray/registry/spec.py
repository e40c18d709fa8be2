"""Keys of a publish job."""

from typing import Annotated, Literal

from pydantic import Field

from ..jobs.spec import URI, ImageSize, ModelUse, Name, Reading


class PublishSpec(ModelUse):
    """Checkpoint -> folded, checked, registered version; alias moved."""

    kind: Literal["publish"]
    registry: URI
    """Where versions are registered."""
    publish_as: Name
    """Name of the registered model."""
    alias: Name | None = "latest"
    """Alias moved to the new version."""
    dataset: URI | None = None
    """Dataset on whose split parity and AP of the folded model are measured."""
    split: Name = "val"
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""
    data: Reading = Reading()
    parity_tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest relative difference of folded against trained outputs that is accepted."""
