"""Keys of a publish job."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..jobs.spec import URI, Fraction, ImageSize, ModelUse, Name, Reading


class PublishSpec(ModelUse):
    """Checkpoint -> folded, checked, registered version; alias moved."""

    kind: Literal["publish"]
    model: str
    """Run, checkpoint or .safetensors URI, NAME, NAME@ALIAS or NAME:VERSION of the registry; or the front of a search."""
    registry: URI
    """Where versions are registered."""
    publish_as: Name
    """Name of the registered model; those of a front are NAME-SIZE, e.g. detector-w050-320px."""
    alias: Name | None = "latest"
    """Alias moved to the new version."""
    dataset: URI | None = None
    """Dataset on whose split parity and AP of the folded model are measured."""
    split: Name = "val"
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""
    data: Reading = Reading()
    least_ap: Fraction | None = None
    """A model with a lower AP on `split` is not registered."""
    parity_tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest relative difference of folded against trained outputs that is accepted."""

    @model_validator(mode="after")
    def _check_gate(self) -> "PublishSpec":
        if self.least_ap is not None and self.dataset is None:
            raise ValueError(f"least_ap: {self.least_ap:g} needs images to be measured on; give dataset, or leave it out")
        return self
