"""Keys of a publish job."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..engines.names import Precision
from ..jobs.spec import URI, Fraction, ImageSize, ModelUse, Name, Part, Reading

PRECISIONS = {"onnxruntime": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8")}


class CompiledFor(Part):
    """An engine that shall run the version."""

    engine: Literal["onnxruntime", "openvino"]
    precision: Precision = "fp32"
    """int8: calibrated on images of `calibration_split`."""
    ap_tolerance: Fraction | None = None
    """Default: the job's."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"engine": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_precision(self) -> "CompiledFor":
        if self.precision not in PRECISIONS[self.engine]:
            raise ValueError(f"precision: {self.engine} computes in {', '.join(PRECISIONS[self.engine])}, not in "
                             f"{self.precision}")
        return self


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
    engines: tuple[CompiledFor, ...] = ()
    """The version carries what these read, measured: [openvino, {engine: openvino, precision: bf16}]. Its endpoints
    start without exporting, and their `engine: auto` takes the fastest."""
    ap_tolerance: Fraction = 0.002
    """AP on `split` that an engine may lose against the folded model in fp32; more is refused."""
    calibration_split: Name = "train"
    """Where the ranges of int8 are taken from."""

    @model_validator(mode="after")
    def _check_gate(self) -> "PublishSpec":
        if self.engines and self.dataset is None:
            raise ValueError("engines: their AP needs images to be measured on; give dataset, or leave engines out")
        if self.least_ap is not None and self.dataset is None:
            raise ValueError(f"least_ap: {self.least_ap:g} needs images to be measured on; give dataset, or leave it out")
        return self
