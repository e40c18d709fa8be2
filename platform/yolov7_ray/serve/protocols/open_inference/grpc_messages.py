"""The messages of the Open Inference Protocol's gRPC service, as its .proto file defines them.

Descriptors are built here, at run time, in a pool of their own: no compiler of protocol buffers is needed, and generated
code of a client in the same process does not collide with them.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE, SERVICE = "inference", "GRPCInferenceService"
RPCS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")

MODEL = "name:string version:string"
TENSOR = "name:string datatype:string shape:int64*"
MESSAGES = {
    "ServerLiveRequest": "", "ServerLiveResponse": "live:bool",
    "ServerReadyRequest": "", "ServerReadyResponse": "ready:bool",
    "ModelReadyRequest": MODEL, "ModelReadyResponse": "ready:bool",
    "ServerMetadataRequest": "", "ServerMetadataResponse": f"{MODEL} extensions:string*",
    "ModelMetadataRequest": MODEL,
    "ModelMetadataResponse": "name:string versions:string* platform:string inputs:.ModelMetadataResponse.TensorMetadata* "
                             "outputs:.ModelMetadataResponse.TensorMetadata*",
    "ModelMetadataResponse.TensorMetadata": TENSOR,
    "InferParameter": "bool_param:bool? int64_param:int64? string_param:string? double_param:double? uint64_param:uint64?",
    "InferTensorContents": "bool_contents:bool* int_contents:int32* int64_contents:int64* uint_contents:uint32* "
                           "uint64_contents:uint64* fp32_contents:float* fp64_contents:double* bytes_contents:bytes*",
    "ModelInferRequest": "model_name:string model_version:string id:string parameters:map "
                         "inputs:.ModelInferRequest.InferInputTensor* "
                         "outputs:.ModelInferRequest.InferRequestedOutputTensor* raw_input_contents:bytes*",
    "ModelInferRequest.InferInputTensor": f"{TENSOR} parameters:map contents:.InferTensorContents",
    "ModelInferRequest.InferRequestedOutputTensor": "name:string parameters:map",
    "ModelInferResponse": "model_name:string model_version:string id:string parameters:map "
                          "outputs:.ModelInferResponse.InferOutputTensor* raw_output_contents:bytes*",
    "ModelInferResponse.InferOutputTensor": f"{TENSOR} parameters:map contents:.InferTensorContents",
}
"""Message -> its fields, numbered from 1: a type, of this table with a dot before it, with * where it is repeated, ?
where it is one of a choice; `map` goes from text to InferParameter."""

Field = descriptor_pb2.FieldDescriptorProto
MAP = "key:string value:.InferParameter"


def _add_fields(message: descriptor_pb2.DescriptorProto, path: str, fields: str) -> None:
    for number, text in enumerate(fields.split(), 1):
        name, kind = text.split(":")
        field = message.field.add(name=name, number=number, label=Field.LABEL_OPTIONAL)
        if kind == "map":
            entry = message.nested_type.add(name="ParametersEntry")
            entry.options.map_entry = True
            _add_fields(entry, f"{path}.ParametersEntry", MAP)
            kind = f".{path}.ParametersEntry*"
        if kind.endswith("*"):
            field.label = Field.LABEL_REPEATED
        elif kind.endswith("?"):
            field.oneof_index = 0
        kind = kind.rstrip("*?")
        if kind.startswith("."):
            field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}{kind}"
        else:
            field.type = Field.Type.Value(f"TYPE_{kind.upper()}")
    if any(field.HasField("oneof_index") for field in message.field):
        message.oneof_decl.add(name="parameter_choice")


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference_grpc.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for path, fields in MESSAGES.items():
        parent, _, name = path.rpartition(".")
        made[path] = made[parent].nested_type.add(name=name) if parent else file.message_type.add(name=name)
        _add_fields(made[path], path, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {path: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{path}")) for path in MESSAGES}


CLASSES = _classes()
"""Message -> its class."""
