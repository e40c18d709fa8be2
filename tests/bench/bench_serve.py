"""The endpoint under load: requests per second and latency over real HTTP, and what the model alone would do.

    python tests/bench/bench_serve.py [--architecture yolov7-tiny] [--image-size 320] [--seconds 5] [--haproxy]

One 640 x 480 JPEG, again and again, from 1, 4 and 16 clients that keep their connection. Prints a row for each.
"""

import argparse
import http.client
import os
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / "platform"), str(ROOT)]
sys.path[:0] = PATHS
os.environ["PYTHONPATH"] = os.pathsep.join(PATHS)


def photo(height: int = 480, width: int = 640) -> bytes:
    """A JPEG of about 190 kB."""
    from yolov7.images.sample import encode_image

    noise = np.random.default_rng(0).normal(128, 30, (height // 4, width // 4, 3)).clip(0, 255).astype(np.uint8)
    return encode_image(noise.repeat(4, axis=0).repeat(4, axis=1), ".jpg")


def save(architecture: str, path: Path) -> None:
    """A folded model with fresh weights: as fast as a trained one."""
    from yolov7.model.detector import build_model
    from yolov7.model.reparameterize import reparameterize
    from yolov7.checkpoints.weights import save_model

    save_model(path, reparameterize(build_model(architecture, 80)), [f"class {i}" for i in range(80)])


def model_alone(path: Path, size_px: int, image: bytes, seconds: float) -> float:
    """Images per second of decoding, letterbox, model and NMS in this process, one image at a time."""
    import torch

    from yolov7.images.sample import decode_image
    from yolov7_ray.registry.model_source import load_model
    from yolov7_ray.serve.detector import Detector
    from yolov7_ray.serve.served import Options

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = Detector(load_model(str(path)), size_px, device)
    detector.warm_up(1)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        detector.detect([detector.prepare(decode_image(image))[0]], [Options(0.25, 0.45)])
        count += 1
    return count / (time.perf_counter() - start)


def load(url: str, image: bytes, num_clients: int, seconds: float) -> tuple[np.ndarray, dict[int, int]]:
    """Latencies in ms of all answers, and how many had which status."""
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    deadline = time.perf_counter() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
        while time.perf_counter() < deadline:
            start = time.perf_counter()
            connection.request("POST", "/v1/detect", image, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
            latencies.append((time.perf_counter() - start) * 1000)
            statuses[response.status] = statuses.get(response.status, 0) + 1
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(latencies), statuses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="yolov7-tiny")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=0, help="of each replica")
    parser.add_argument("--haproxy", action="store_true", help="Ray Serve's HAProxy ingress")
    arguments = parser.parse_args()
    if arguments.haproxy:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"  # before Ray starts
    import ray
    from ray import serve as ray_serve

    from yolov7_ray.serve.app import serve
    from yolov7_ray.serve.spec import ServeSpec

    image = photo()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.safetensors"
        save(arguments.architecture, path)
        alone = model_alone(path, arguments.image_size, image, arguments.seconds)
        print(f"{arguments.architecture} {arguments.image_size} px, {len(image) / 1e3:.0f} kB JPEG; "
              f"alone in a process, one by one: {alone:.1f} images/s")
        ray.init(log_to_driver=False, include_dashboard=False)
        try:
            url = serve(ServeSpec.model_validate({
                "kind": "serve", "models": {"model": {"model": str(path), "image_size_px": arguments.image_size}},
                "port": 0, "wait": False, "replicas": arguments.replicas, "gpus_per_replica": arguments.gpus,
            }), "bench")["url"]
            print("clients  requests/s  p50 ms  p99 ms  statuses")
            for num_clients in (1, 4, 16):
                latencies, statuses = load(url, image, num_clients, arguments.seconds)
                p50, p99 = np.percentile(latencies, (50, 99))
                print(f"{num_clients:7d}  {len(latencies) / arguments.seconds:10.1f}  {p50:6.1f}  {p99:6.1f}  {statuses}")
        finally:
            ray_serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
