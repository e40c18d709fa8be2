"""An endpoint on two nodes, asked steadily while everything happens to it: requests lost, longest wait, memory.

    python tests/bench/soak_serve.py [--requests 10000] [--quiet 10000] [--clients 4] [--seed 0]

Rounds of: upgrade, roll-out that is promoted, roll-out that is rolled back, kill -9 of a replica, of a gateway and of
the roll-outs' controller, drained node, killed node. Clients keep their connection to the head's proxy, ask again and
again, and retry nothing. Prints a line for each event, and JSON at the end; exit status 1 if a request was lost.
Then a quiet time of so many requests, in which nothing happens, and each process's private memory is told: MB at its end,
and the slope over its second half.
"""

import argparse
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests/yolov7_ray"), str(ROOT / "platform"), str(ROOT)]

from conftest import free_ports  # noqa: E402
from memory import private_mb  # noqa: E402
from nodes import RunningCluster, cluster, descendants  # noqa: E402
from serving import picture, register_blind_model  # noqa: E402

SPACE = 100
"""Requests between two events."""
EVENT_S = 400
"""How long an event may take."""
KINDS = ("Gateway", "detector-", "roll-outs", "ProxyActor", "ServeController")


class Clients:
    """Count answers and losses; samples of memory are taken beside them."""

    def __init__(self, port: int, num_clients: int) -> None:
        self.port, self.answers, self.lost, self.longest_s = port, Counter(), Counter(), 0.0
        self._lock, self._stop, self._image = threading.Lock(), threading.Event(), picture(480, 640)
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(num_clients)]
        for thread in self._threads:
            thread.start()

    @property
    def requests(self) -> int:
        return self.answers.total() + self.lost.total()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=150)
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                connection.request("POST", "/v1/detect", self._image, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                body = response.read()
                answered, found = response.status == 200, f"{response.status}: {body[:100]!r}"
                version = json.loads(body)["version"] if answered else ""
            except (OSError, http.client.HTTPException) as error:
                answered, found, version = False, repr(error), ""
                connection.close()
            with self._lock:
                self.longest_s = max(self.longest_s, time.monotonic() - begun)
                self.answers.update([version] if answered else [])
                self.lost.update([] if answered else [found])

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(160)


def titles(running: RunningCluster) -> dict[int, str]:
    """Processes of the endpoint -> what they are."""
    found = {}
    for node in running.nodes:
        for pid in descendants(node.pid):
            try:
                title = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue
            if title.startswith("ray::") and any(kind in title for kind in KINDS):
                found[pid] = title.removeprefix("ray::").partition(".")[0].partition(" ")[0]
    return found


class Soak:
    """The events, each until it is over."""

    def __init__(self, running: RunningCluster, clients: Clients, job: dict, directory: Path, seed: int) -> None:
        self.running, self.clients, self.job, self.directory = running, clients, job, directory
        self.random, self.batch, self.stable, self.next = random.Random(seed), 8, 1, 2
        self.events = (self.upgrade, self.promoted, self.rolled_back, self.kill_replica, self.kill_gateway,
                       self.kill_controller, self.drain_node, self.kill_node)

    def submit(self, *words: str) -> str:
        done = self.running.submit(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy(self) -> None:
        path = self.directory / "job.yaml"
        path.write_text(yaml.safe_dump(self.job | {"max_batch_size": self.batch}))
        self.submit(str(path))

    def upgrade(self) -> None:
        self.batch = 12 - self.batch
        self.deploy()

    def _roll_out(self, label: int, ending: str) -> int:
        version = register_blind_model(self.job["registry"], self.directory, label=label).version
        self.submit("endpoint", "roll-out", f"shapes:{version}", "--steps", "50,100", "--hold", "1s",
                    "--limit", "min_requests=50", "--limit", "max_latency=1000")
        self._until(lambda: f"shapes:{version} {ending}" in self.submit("endpoint", "status"), f"it is {ending}")
        return int(version)

    def promoted(self) -> None:
        version = str(self._roll_out(1, "promoted"))
        self._until(lambda: self._answer_soon() == version, "the version is served")

    def rolled_back(self) -> None:
        self._roll_out(0, "rolled back")

    def _answer_soon(self) -> str:
        before = self.clients.answers.copy()
        self._until(lambda: (self.clients.answers - before).total() >= 20, "answers")
        return max((self.clients.answers - before).items(), key=lambda item: item[1])[0]

    def _kill(self, kind: str) -> None:
        victim = self.random.choice([pid for pid, title in titles(self.running).items() if kind in title])
        os.kill(victim, signal.SIGKILL)
        self._until(lambda: victim not in titles(self.running) and self._count(kind) >= self._least(kind), f"new {kind}")

    def _count(self, kind: str) -> int:
        return sum(kind in title for title in titles(self.running).values())

    def _least(self, kind: str) -> int:
        return 1 if kind == "roll-outs" else 2

    def kill_replica(self) -> None:
        self._kill("detector-")

    def kill_gateway(self) -> None:
        self._kill("Gateway")

    def kill_controller(self) -> None:
        self._kill("roll-outs")

    def drain_node(self) -> None:
        node = self._occupied_node()
        self.running.reclaim_node(300)
        self.running.add_node(2)
        self._until(lambda: not self._replicas_on(node), "its replicas have moved")
        self.running.kill_node(node)

    def kill_node(self) -> None:
        self.running.kill_node(self._occupied_node())
        self.running.add_node(2)
        self._until(lambda: min(self._count("detector-"), self._count("Gateway")) >= 2, "replicas are there again")

    def _occupied_node(self):
        """The worker node, once a replica is there: the head has room for one alone."""
        node = self.running.nodes[-1]
        self._until(lambda: any("detector-" in title for title in self._replicas_on(node)), "a replica is on the node")
        return node

    def _replicas_on(self, node) -> list[str]:
        below = set(descendants(node.pid))
        return [title for pid, title in titles(self.running).items() if pid in below and "ServeReplica" in title]

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + EVENT_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {EVENT_S} s: {what}"
            time.sleep(0.5)


class Memory(threading.Thread):
    """Samples of every process of the endpoint, each with the number of requests until then."""

    def __init__(self, running: RunningCluster, clients: Clients) -> None:
        super().__init__(daemon=True)
        self.running, self.clients, self.done, self.samples = running, clients, threading.Event(), {}

    def run(self) -> None:
        while not self.done.wait(3):
            for pid, title in titles(self.running).items():
                try:
                    self.samples.setdefault((pid, title), []).append((self.clients.requests, private_mb(pid)))
                except (OSError, IndexError):
                    continue

    def slopes(self) -> list[tuple[str, float, float]]:
        """What a process is, its MB at the end, and MB per 10,000 requests over the second half."""
        halves = [(title, np.array(samples[len(samples) // 2:])) for (_, title), samples in self.samples.items()]
        return sorted((title, round(float(half[-1, 1]), 1), round(float(np.polyfit(*half.T, 1)[0]) * 10_000, 2))
                      for title, half in halves if len(half) >= 5 and np.ptp(half[:, 0]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--quiet", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    port, worker_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="soak-") as name, cluster(1) as running:
        directory = Path(name)
        registry = str(directory / "registry")
        register_blind_model(registry, directory, label=1)
        running.environment["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(worker_port)  # both nodes are on this machine
        running.add_node(2)
        job = {"kind": "serve", "registry": registry, "models": {"shapes": {"model": "shapes:1"}}, "replicas": 2,
               "cpus_per_replica": 0.6, "port": port, "wait": False}
        soak = Soak(running, None, job, directory, arguments.seed)
        soak.deploy()
        soak.clients = clients = Clients(port, arguments.clients)
        begun, happened = time.monotonic(), Counter()
        try:
            while clients.requests < arguments.requests or not happened:
                for event in soak.events:
                    target = clients.requests + SPACE
                    while clients.requests < target:
                        time.sleep(0.1)
                    before, lost, start, clients.longest_s = clients.requests, clients.lost.total(), time.monotonic(), 0.0
                    event()
                    happened[event.__name__] += 1
                    print(f"{event.__name__:16} {time.monotonic() - start:6.1f} s  {clients.requests - before:6d} requests  "
                          f"{clients.lost.total() - lost:4d} lost  longest {clients.longest_s:5.1f} s", flush=True)
            memory = Memory(running, clients)
            memory.start()
            until = clients.requests + arguments.quiet
            while clients.requests < until:
                time.sleep(0.1)
            memory.done.set()
            memory.join()
        finally:
            clients.end()
        seconds = time.monotonic() - begun
        print(json.dumps({"requests": clients.requests, "lost": clients.lost.total(), "losses": dict(clients.lost),
                          "events": happened, "seconds": round(seconds), "answers": dict(clients.answers),
                          "memory: MB, MB per 10,000 requests": memory.slopes()}))
        return 1 if clients.lost else 0


if __name__ == "__main__":
    sys.exit(main())
