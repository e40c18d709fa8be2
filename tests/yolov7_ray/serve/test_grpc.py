"""The Open Inference Protocol over gRPC: on a real gRPC server, and behind Ray Serve's proxy.

Messages are ours, and those of Triton's own client where it is installed (`pip install 'tritonclient[grpc]'`).
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from local_endpoint import LIMITS, LocalModel
from serving import deployed, endpoint_spec, expected_boxes, picture, register_blind_model

from yolov7.images.sample import decode_image
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.serve.access.spec import Token, sha256_of
from yolov7_ray.serve.access.tokens import Tokens
from yolov7_ray.serve.protocols.open_inference.grpc_messages import CLASSES
from yolov7_ray.serve.protocols.open_inference.grpc_service import GrpcCalls, GrpcService, add_servicer
from yolov7_ray.serve.served import Settings

SIZES = [(96, 128), (40, 60)]
PIXELS = decode_image(picture(40, 60))


def call(address: str, rpc: str, token: str | None = None, **fields):
    """The answer of our own messages; grpc.RpcError if it is an error."""
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(f"/inference.GRPCInferenceService/{rpc}", CLASSES[f"{rpc}Request"].SerializeToString,
                                  CLASSES[f"{rpc}Response"].FromString)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        return ask(CLASSES[f"{rpc}Request"](**fields), timeout=60, metadata=metadata, wait_for_ready=True)


@contextmanager
def grpc_served(tokens: Tokens = Tokens()) -> Iterator[str]:
    """The address of a server in this process."""
    calls, ready, loop = GrpcCalls(), threading.Event(), asyncio.new_event_loop()
    calls.grpc_service = GrpcService({"shapes": LocalModel()}, Settings(LIMITS, tokens=tokens))
    port = 0

    async def serve() -> None:
        nonlocal port, ended
        ended = asyncio.Event()
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 100_000_000)])
        add_servicer(calls, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready.set()
        await ended.wait()
        await server.stop(None)

    ended: asyncio.Event | None = None
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield f"127.0.0.1:{port}"
    loop.call_soon_threadsafe(ended.set)
    thread.join(60)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with grpc_served() as found:
        yield found


def check(found: dict[str, np.ndarray], sizes: list[tuple[int, int]]) -> None:
    assert found["num_detections"].tolist() == [4] * len(sizes) and set(found["labels"].tolist()) == {1}
    for size, boxes in zip(sizes, np.split(found["boxes"], np.cumsum(found["num_detections"])[:-1]), strict=True):
        np.testing.assert_allclose(boxes[np.lexsort(boxes.T)], expected_boxes(*size), atol=0.1 * max(size) / 64)


def outputs(answer) -> dict[str, np.ndarray]:
    dtypes = {"FP32": "<f4", "INT64": "<i8"}
    return {tensor.name: np.frombuffer(raw, dtypes[tensor.datatype]).reshape(tensor.shape)
            for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}


def test_server_and_model(address):
    assert call(address, "ServerLive").live and call(address, "ServerReady").ready
    assert call(address, "ModelReady", name="shapes", version="1").ready
    assert call(address, "ServerMetadata").name == "yolov7_ray"
    model = call(address, "ModelMetadata", name="shapes")
    assert list(model.versions) == ["1"] and [tensor.name for tensor in model.outputs] == [
        "boxes", "scores", "labels", "num_detections"]
    assert (model.inputs[0].name, model.inputs[0].datatype, list(model.inputs[0].shape)) == (
        "image", "UINT8", [-1, -1, -1, 3])


ENCODED = [picture(*size) for size in SIZES]
RAW = b"".join(len(image).to_bytes(4, "little") + image for image in ENCODED)


@pytest.mark.parametrize("tensor, raw, sizes", [
    ({"datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": ENCODED}}, None, SIZES),
    ({"datatype": "BYTES", "shape": [2]}, RAW, SIZES),
    ({"datatype": "UINT8", "shape": [40, 60, 3]}, PIXELS.tobytes(), [(40, 60)]),
    ({"datatype": "UINT8", "shape": [40, 60, 3], "contents": {"uint_contents": PIXELS.ravel().tolist()}}, None, [(40, 60)]),
    ({"datatype": "FP32", "shape": [1, 40, 60, 3], "contents": {"fp32_contents": (PIXELS / 255).ravel()}}, None,
     [(40, 60)]),
    ({"datatype": "FP16", "shape": [3, 40, 60], "parameters": {"layout": {"string_param": "CHW"}}},
     (PIXELS / 255).astype("<f2").transpose(2, 0, 1).tobytes(), [(40, 60)]),
], ids=lambda value: None)
def test_images(address, tensor, raw, sizes):
    fields = {"inputs": [{"name": "image"} | tensor], "raw_input_contents": [] if raw is None else [raw]}
    answer = call(address, "ModelInfer", model_name="shapes", id="seven", **fields)
    assert (answer.model_name, answer.model_version, answer.id) == ("shapes", "1", "seven")
    check(outputs(answer), sizes)


def test_parameters_and_chosen_outputs(address):
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": ENCODED[:1]}}
    answer = call(address, "ModelInfer", model_name="shapes", inputs=[tensor], outputs=[{"name": "scores"}],
                  parameters={"max_detections": {"int64_param": 3}, "confidence": {"double_param": 0.5}})
    assert outputs(answer).keys() == {"scores"} and len(outputs(answer)["scores"]) == 3


GREY = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 3]}


@pytest.mark.parametrize("rpc, fields, code, problem", [
    ("ModelInfer", {"model_name": "bikes"}, "NOT_FOUND", "model: 'bikes' is unknown"),
    ("ModelReady", {"name": "shapes", "version": "2"}, "NOT_FOUND", "version '2' is not served"),
    ("ModelInfer", {"model_name": "shapes"}, "INVALID_ARGUMENT", "inputs: are []"),
    ("ModelInfer", {"model_name": "shapes", "inputs": [GREY]}, "INVALID_ARGUMENT", "data does not fit"),
    ("ModelInfer", {"model_name": "shapes", "inputs": [GREY], "raw_input_contents": [b"abc"] * 2}, "INVALID_ARGUMENT",
     "holds several tensors"),
    ("ModelInfer", {"model_name": "shapes", "inputs": [GREY], "raw_input_contents": [b"abc"],
                    "parameters": {"iou": {"double_param": 7}}}, "INVALID_ARGUMENT", "iou: "),
    ("ModelInfer", {"model_name": "shapes", "inputs": [GREY], "outputs": [{"name": "x"}]}, "INVALID_ARGUMENT", "'x' is unkn"),
    ("ModelInfer", {"model_name": "shapes", "raw_input_contents": [bytes(21_000_000)]}, "RESOURCE_EXHAUSTED",
     "at most 20000000 bytes"),
])
def test_errors(address, rpc, fields, code, problem):
    with pytest.raises(grpc.RpcError) as error:
        call(address, rpc, **fields)
    assert error.value.code().name == code and problem in error.value.details()


def test_what_is_no_message(address):
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff\xff\xff", timeout=60)
    assert error.value.code().name == "INVALID_ARGUMENT"


def test_a_failure_tells_nothing_of_its_cause(monkeypatch, capfd):
    async def fail(self, image, options, draw=False):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(LocalModel, "detect", fail)
    with grpc_served() as address, pytest.raises(grpc.RpcError) as error:
        call(address, "ModelInfer", model_name="shapes", inputs=[GREY], raw_input_contents=[b"abc"])
    assert error.value.code().name == "INTERNAL"
    assert error.value.details() == "the server failed on this request; its log holds the cause"
    assert "ZeroDivisionError: secret" in capfd.readouterr().err


def test_tokens():
    with grpc_served(Tokens({"a": Token(sha256=sha256_of("one")),
                             "b": Token(sha256=sha256_of("two"), scopes=["metrics"])})) as address:
        assert call(address, "ServerLive").live and call(address, "ModelReady", "one", name="shapes").ready
        for token, code in ((None, "UNAUTHENTICATED"), ("three", "UNAUTHENTICATED"), ("two", "PERMISSION_DENIED")):
            with pytest.raises(grpc.RpcError) as error:
                call(address, "ModelReady", token, name="shapes")
            assert error.value.code().name == code


def test_tritons_client(address):
    triton = pytest.importorskip("tritonclient.grpc", reason="Triton's client is not installed: tritonclient[grpc]")
    ask_as_triton(triton, address, {})


def ask_as_triton(triton, address: str, headers: dict) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("shapes", "1", headers=headers)
        assert client.get_server_metadata(headers=headers).name == "yolov7_ray"
        assert client.get_model_metadata("shapes", headers=headers).platform == "pytorch_yolov7"
        for array, datatype, sizes in ((np.array(ENCODED, object), "BYTES", SIZES), (PIXELS, "UINT8", [(40, 60)])):
            tensor = triton.InferInput("image", list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            answer = client.infer("shapes", [tensor], headers=headers)
            check({name: answer.as_numpy(name) for name in ("boxes", "labels", "num_detections")}, sizes)


def test_messages_are_those_of_tritons_client():
    service = pytest.importorskip("tritonclient.grpc", reason="Triton's client is not installed").service_pb2

    def fields(descriptor) -> set:
        return {(field.name, field.number, field.type, field.is_repeated, bool(field.containing_oneof),
                 field.message_type and field.message_type.full_name) for field in descriptor.fields}

    for name, message in CLASSES.items():
        assert fields(message.DESCRIPTOR) == fields(service.DESCRIPTOR.pool.FindMessageTypeByName(f"inference.{name}"))


def test_a_port_open_to_all_is_refused():
    job = {"kind": "serve", "models": {"a": {"model": "a"}}, "registry": "r", "grpc_port": 9000}
    with pytest.raises(JobError, match="grpc_port 9000 would be open to all at every address; give tokens, or"):
        validate(job)
    assert validate(job | {"host": "0.0.0.0"}).grpc_port == validate(job | {"token_env": "T"}).grpc_port == 9000


@pytest.mark.ray
@pytest.mark.slow
def test_behind_ray_serve(ray_session, tmp_path, monkeypatch):
    from yolov7_ray.serve.app import serve

    register_blind_model(str(tmp_path / "registry"), tmp_path)
    monkeypatch.setenv("YOLOV7_TEST_TOKEN", "open sesame")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with deployed(str(tmp_path / "registry"), models={"shapes": {"model": "shapes"}}, grpc_port=port,
                  token_env="YOLOV7_TEST_TOKEN"):
        address, token = f"127.0.0.1:{port}", "open sesame"
        assert call(address, "ServerReady").ready
        with pytest.raises(grpc.RpcError) as error:
            call(address, "ModelReady", "wrong", name="shapes")
        assert error.value.code().name == "UNAUTHENTICATED" and "bearer token is wrong" in error.value.details()
        tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": ENCODED}}
        check(outputs(call(address, "ModelInfer", token, model_name="shapes", inputs=[tensor])), SIZES)
        with pytest.raises(grpc.RpcError) as error:
            call(address, "ModelInfer", token, model_name="shapes", inputs=[GREY])
        assert error.value.code().name == "INVALID_ARGUMENT"
        with pytest.raises(JobError, match="^grpc_port: 1: cannot be listened on: Ray Serve was started without it"):
            serve(endpoint_spec(str(tmp_path / "registry"), models={"shapes": {"model": "shapes"}}, grpc_port=1,
                                token_env="YOLOV7_TEST_TOKEN"), "test")
        try:
            import tritonclient.grpc as triton
        except ImportError:
            return
        ask_as_triton(triton, address, {"authorization": f"Bearer {token}"})
