"""The endpoint under load: requests per second and latency over real HTTP, and what the model alone would do.

    python tests/bench/bench_serve.py [--architecture yolov7-tiny] [--image-size 320] [--seconds 5] [--clients 1,8,32]
                                      [--engine auto] [--haproxy]

One 640 x 480 JPEG, again and again, from clients that keep their connection and, answered 503, wait as long as
Retry-After says. Prints a row for each number of clients: answers, their latency and mean batch; CPU time of an
exchange (answer or refusal) by process, which other work on the machine hardly moves; refusals, their latency.
"""

import argparse
import http.client
import json
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

    from yolov7_ray.registry.model_source import load_model
    from yolov7_ray.detect.detector import Detector

    torch.set_num_threads(1)
    detector = Detector(load_model(str(path)), image_size_px=size_px, rectangular=False)
    detector.warm_up(1)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        detector(image)
        count += 1
    return count / (time.perf_counter() - start)


def load(url: str, image: bytes, num_clients: int, seconds: float) -> dict[int, list[tuple[float, int]]]:
    """Status -> latency in ms and batch size (0 unless 200) of every answer."""
    answers: dict[int, list[tuple[float, int]]] = {200: [], 503: []}
    deadline = time.perf_counter() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=120)
        while (start := time.perf_counter()) < deadline:
            connection.request("POST", "/v1/detect", image, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            body = response.read()
            milliseconds = (time.perf_counter() - start) * 1000
            batch_size = json.loads(body)["batch_size"] if response.status == 200 else 0
            answers.setdefault(response.status, []).append((milliseconds, batch_size))
            if response.status == 503:
                retry_after_s = float(response.headers.get("Retry-After", 0))
                time.sleep(max(0.0, min(retry_after_s, deadline - time.perf_counter())))
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


PROCESSES = {"proxy": "ray::ProxyActor", "haproxy": "haproxy", "gateway": "Gateway", "replica": "detector-model"}
"""Name -> what the title of the process holds."""


def cpu_seconds() -> dict[str, float]:
    """CPU seconds until now, by process; the clients are this one."""
    found = dict.fromkeys(PROCESSES, 0.0) | {"clients": time.process_time()}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_text()
            ticks = (path / "stat").read_text().rpartition(")")[2].split()[11:13]
            session = (path / "environ").read_text()
        except OSError:  # it has ended, or is not ours
            continue
        name = next((name for name, mark in PROCESSES.items() if mark in title[:200]), None)
        if name and f"BENCH_SERVE={os.getpid()}" in session:
            found[name] += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return found


def row(num_clients: int, answers: dict[int, list[tuple[float, int]]], seconds: float, cpu: dict[str, float]) -> str:
    """A line of the table."""
    good, refused = np.array(answers[200]), np.array(answers[503])
    p50, p99 = np.percentile(good[:, 0], (50, 99))
    text = f"{num_clients:7d}  {len(good) / seconds:9.1f}  {p50:7.1f}  {p99:7.1f}  {good[:, 1].mean():10.1f}"
    num_exchanges = sum(map(len, answers.values()))
    text += "  " + " ".join(f"{name} {1e3 * spent / num_exchanges:.1f}" for name, spent in cpu.items() if spent)
    if len(refused):
        text += f"  {len(refused):5d}, p50 {np.median(refused[:, 0]):.0f}, p99 {np.percentile(refused[:, 0], 99):.0f} ms"
    others = {status: len(many) for status, many in answers.items() if status not in (200, 503)}
    return text + (f"  others: {others}" if others else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="yolov7-tiny")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", default="1,8,32,128,512")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--gpus", type=float, default=0, help="of each replica")
    parser.add_argument("--haproxy", action="store_true", help="Ray Serve's HAProxy ingress")
    arguments = parser.parse_args()
    if arguments.haproxy:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"  # before Ray starts
    os.environ["BENCH_SERVE"] = str(os.getpid())  # by which the processes of this Ray are known
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
                "engine": arguments.engine, "precision": arguments.precision,
            }), "bench")["url"]
            print("clients  answers/s   p50 ms   p99 ms  mean batch  CPU ms of an exchange  answered 503")
            load(url, image, 8, 2)  # what is made lazily
            for num_clients in map(int, arguments.clients.split(",")):
                start, before = time.perf_counter(), cpu_seconds()
                answers = load(url, image, num_clients, arguments.seconds)
                spent = {name: seconds - before[name] for name, seconds in cpu_seconds().items()}
                print(row(num_clients, answers, time.perf_counter() - start, spent), flush=True)
        finally:
            ray_serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
