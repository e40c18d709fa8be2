"""The Open Inference Protocol over gRPC: Ray Serve's gRPC proxy passes each call to the gateway's method of its name.

Requests come as they were sent: they are parsed here, not in the proxy. A token is the metadata `authorization: Bearer …`.
"""

import asyncio
import struct
import traceback
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from pydantic import ValidationError

from ...limits import RequestError, too_many_bytes
from ...served import ServedModel, Settings, detect_all, find_model
from .description import model_metadata, server_metadata
from .grpc_messages import CLASSES, PACKAGE, RPCS, SERVICE
from .images import images_of
from .messages import InferParameters, TensorParameters, check_names, malformed
from .outputs import OUTPUTS, output_tensors

CODES = {400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED,
         403: grpc.StatusCode.PERMISSION_DENIED, 404: grpc.StatusCode.NOT_FOUND,
         413: grpc.StatusCode.RESOURCE_EXHAUSTED, 429: grpc.StatusCode.RESOURCE_EXHAUSTED,
         503: grpc.StatusCode.UNAVAILABLE}
"""HTTP status -> gRPC's; the others are INTERNAL."""


def add_servicer(servicer: Any, server: Any) -> None:
    """Register the calls with a gRPC server, as `add_…Servicer_to_server` of generated code does; requests are bytes."""
    handlers = {name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name),
                                                          response_serializer=CLASSES[f"{name}Response"].SerializeToString)
                for name in RPCS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{PACKAGE}.{SERVICE}", handlers),))


class GrpcService:
    """The calls, over the same models as the routes."""

    def __init__(self, models: Mapping[str, ServedModel], settings: Settings) -> None:
        self._models, self._settings = models, settings

    async def answer(self, rpc: str, data: bytes, context: Any) -> Message:
        """The answer to one call; after an error it is empty, and the context holds code and details."""
        try:
            if len(data) > self._settings.limits.max_bytes:
                raise too_many_bytes(f"{len(data)} bytes", self._settings.limits)
            if rpc not in ("ServerLive", "ServerReady"):
                self._settings.tokens.check(_bearer(context.invocation_metadata()), "detect")
            try:
                request = await asyncio.to_thread(CLASSES[f"{rpc}Request"].FromString, data)
            except DecodeError as error:
                raise RequestError(400, "body", "is no message of this call",
                                   "send one of the Open Inference Protocol") from error
            fields = await getattr(self, f"_{rpc}")(request)
            return CLASSES[f"{rpc}Response"](**fields)
        except RequestError as error:
            context.set_code(CODES.get(error.status, grpc.StatusCode.INTERNAL))
            context.set_details(str(error))
        except Exception:  # noqa: BLE001  (its cause is for the log alone)
            traceback.print_exc()
            context.set_code(grpc.StatusCode.INTERNAL)
            context.set_details("the server failed on this request; its log holds the cause")
        return CLASSES[f"{rpc}Response"]()

    async def _ServerLive(self, request: Message) -> dict[str, Any]:
        return {"live": True}

    async def _ServerReady(self, request: Message) -> dict[str, Any]:
        return {"ready": all(await asyncio.gather(*(model.is_ready() for model in self._models.values())))}

    async def _ModelReady(self, request: Message) -> dict[str, Any]:
        return {"ready": await find_model(self._models, request.name, request.version).is_ready()}

    async def _ServerMetadata(self, request: Message) -> dict[str, Any]:
        return server_metadata()

    async def _ModelMetadata(self, request: Message) -> dict[str, Any]:
        told = model_metadata(find_model(self._models, request.name, request.version).info)

        def tensors(key: str) -> list[dict[str, Any]]:
            return [{name: tensor[name] for name in ("name", "datatype", "shape")} for tensor in told[key]]

        return {key: told[key] for key in ("name", "versions", "platform")} | {
            "inputs": tensors("inputs"), "outputs": tensors("outputs")}

    async def _ModelInfer(self, request: Message) -> dict[str, Any]:
        model = find_model(self._models, request.model_name, request.model_version)
        model.check_room()
        wanted, images = await asyncio.to_thread(self._read, request)
        found = await detect_all(model, images, model.info.options(wanted.confidence, wanted.iou, wanted.max_detections))
        tensors = output_tensors(found)
        names = [output.name for output in request.outputs] or list(OUTPUTS)
        return {"model_name": found[0].info.name, "model_version": found[0].info.version, "id": request.id,
                "outputs": [{"name": name, "datatype": OUTPUTS[name][0], "shape": tensors[name].shape} for name in names],
                "raw_output_contents": [tensors[name].tobytes() for name in names]}

    def _read(self, request: Message) -> tuple[InferParameters, list[bytes] | list[np.ndarray]]:
        """Parameters and images; RequestError 400 or 413 if they do not fit."""
        check_names([tensor.name for tensor in request.inputs], [output.name for output in request.outputs])
        [tensor] = request.inputs
        try:
            wanted = InferParameters.model_validate(_parameters(request))
            layout = TensorParameters.model_validate(_parameters(tensor)).layout
        except ValidationError as error:
            raise malformed(error) from error
        if len(request.raw_input_contents) > 1:
            raise RequestError(400, "raw_input_contents", "holds several tensors", "send that of 'image'")
        data = request.raw_input_contents[0] if request.raw_input_contents else _typed(tensor)
        return wanted, images_of(list(tensor.shape), tensor.datatype, data, self._settings.limits, layout)


class GrpcCalls:
    """The methods of a gateway that Ray Serve's gRPC proxy calls; ``grpc_service`` answers them."""

    grpc_service: GrpcService

    async def ServerLive(self, request: bytes, grpc_context: Any) -> Message:
        """The gateway lives."""
        return await self.grpc_service.answer("ServerLive", request, grpc_context)

    async def ServerReady(self, request: bytes, grpc_context: Any) -> Message:
        """A replica of every model answers."""
        return await self.grpc_service.answer("ServerReady", request, grpc_context)

    async def ModelReady(self, request: bytes, grpc_context: Any) -> Message:
        """A replica of the model answers."""
        return await self.grpc_service.answer("ModelReady", request, grpc_context)

    async def ServerMetadata(self, request: bytes, grpc_context: Any) -> Message:
        """Name, version and extensions."""
        return await self.grpc_service.answer("ServerMetadata", request, grpc_context)

    async def ModelMetadata(self, request: bytes, grpc_context: Any) -> Message:
        """A model's tensors."""
        return await self.grpc_service.answer("ModelMetadata", request, grpc_context)

    async def ModelInfer(self, request: bytes, grpc_context: Any) -> Message:
        """Detect in one or several images."""
        return await self.grpc_service.answer("ModelInfer", request, grpc_context)


def _bearer(metadata: Any) -> str | None:
    values = [value for key, value in metadata if key.lower() == "authorization"]
    scheme, _, token = (values[0] if values else "").partition(" ")
    return token if scheme.lower() == "bearer" else None


def _parameters(message: Message) -> dict[str, Any]:
    return {name: getattr(value, choice) for name, value in message.parameters.items()
            if (choice := value.WhichOneof("parameter_choice"))}


def _typed(tensor: Message) -> bytes | list:
    """The data of a tensor that is not raw."""
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(image)) + image for image in tensor.contents.bytes_contents)
    return list(tensor.contents.uint_contents if tensor.datatype == "UINT8" else tensor.contents.fp32_contents)
