"""JSON schemas of the API."""

from pydantic import BaseModel, Field

from .served import Detected


class Detection(BaseModel):
    """One object."""

    box_xyxy: tuple[float, float, float, float] = Field(
        description="Left, top, right, bottom in pixels of the sent image, as it is displayed")
    score: float = Field(description="0 to 1")
    label: int = Field(description="Index of the class")
    name: str = Field(description="Name of the class")


class DetectResponse(BaseModel):
    """The objects in one image, best first."""

    model: str
    version: str
    width_px: int
    height_px: int
    batch_size: int = Field(description="Images that were looked at together")
    inference_ms: float = Field(description="Time that they took in the model, NMS included")
    stages_ms: dict[str, float] = Field(description="Time in the replica by stage: wait, decode, model")
    detections: list[Detection]

    @classmethod
    def of(cls, found: Detected) -> "DetectResponse":
        info = found.info
        detections = [
            Detection(box_xyxy=(row[0], row[1], row[2], row[3]), score=row[4], label=int(row[5]),
                      name=info.classes[int(row[5])])
            for row in found.detections.astype(float).round(4).tolist()
        ]
        return cls(model=info.name, version=info.version, width_px=found.size_hw[1], height_px=found.size_hw[0],
                   batch_size=found.batch_size, inference_ms=round(found.inference_ms, 2),
                   stages_ms={stage: round(ms, 2) for stage, ms in found.stages_ms.items()}, detections=detections)


class ModelDescription(BaseModel):
    """One model of this endpoint."""

    name: str
    version: str
    ref: str
    architecture: str
    image_size_px: int
    classes: list[str]
    engine: str = Field("", description="What runs it, and its precision; empty until a replica has answered")
    newer: str | None = Field(None, description="The version that the model's alias or name refers to by now, if it is "
                                                "another one: the endpoint serves what it was deployed with")
    default: bool = Field(description="Whether it answers requests that name no model")


class ModelList(BaseModel):
    """All models of this endpoint."""

    models: list[ModelDescription]


class ErrorDetail(BaseModel):
    """Where something was wrong, what arrived there, and what works instead."""

    where: str
    problem: str
    remedy: str
    request_id: str | None = Field(None, description="As in the header X-Request-ID, and in the access log")


class ErrorResponse(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


class TextError(BaseModel):
    """The same as one string, as the Open Inference Protocol has it."""

    error: str


class Health(BaseModel):
    """Whether the endpoint lives, or which models are ready."""

    status: str
    models: dict[str, bool] = {}
