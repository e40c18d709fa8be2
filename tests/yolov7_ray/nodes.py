"""A real Ray cluster of several nodes on this machine, with token authentication; each node ends by its pid."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import requests
from conftest import free_ports

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 400


@dataclass
class RunningCluster:
    """The cluster under test."""

    address: str
    token: str
    environment: dict[str, str]
    directory: Path
    gcs_port: int
    nodes: list[subprocess.Popen] = field(default_factory=list)
    """The head first."""

    def submit(self, *words: str, timeout_s: int = 900) -> subprocess.CompletedProcess:
        """Run submit.py against the cluster."""
        return subprocess.run([sys.executable, ROOT / "submit.py", *words, "--address", self.address], text=True,
                              env=self.environment, capture_output=True, timeout=timeout_s)

    def add_node(self, num_cpus: int) -> subprocess.Popen:
        """Start another node and wait until the cluster counts it."""
        http_port, grpc_port = free_ports(2)
        node = self._start(f"--address=127.0.0.1:{self.gcs_port}", f"--num-cpus={num_cpus}",
                           f"--dashboard-agent-listen-port={http_port}", f"--dashboard-agent-grpc-port={grpc_port}")
        wait_until(lambda: self.num_alive() >= len(self.nodes), "another node is there", [node], self._log(node))
        return node

    def num_alive(self) -> int:
        """Nodes that the cluster counts as alive."""
        return len(self._raylets())

    def _raylets(self) -> list[dict]:
        answer = self._ask("/nodes?view=summary")
        nodes = answer.json()["data"]["summary"] if answer is not None and answer.ok else []
        return [node["raylet"] for node in nodes if node["raylet"]["state"] == "ALIVE"]

    def reclaim_node(self, deadline_s: int) -> None:
        """What a cloud says of a spot machine: every node but the head will be gone after so many seconds."""
        for raylet in self._raylets():
            if not raylet["isHeadNode"]:
                subprocess.run(
                    [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--node-id", raylet["nodeId"],
                     "--address", f"127.0.0.1:{self.gcs_port}", "--reason", "DRAIN_NODE_REASON_PREEMPTION",
                     "--reason-message", "spot", "--deadline-remaining-seconds", str(deadline_s)],
                    env=self.environment, check=True, timeout=300)

    def kill_node(self, node: subprocess.Popen) -> None:
        """What a power cut does: every process of the node is gone at once."""
        for pid in [node.pid, *descendants(node.pid)]:
            os.kill(pid, signal.SIGKILL)
        node.wait(60)
        self.nodes.remove(node)

    def _start(self, *words: str) -> subprocess.Popen:
        with open(self.directory / f"node-{len(self.nodes)}.log", "ab") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
                 "--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 << 20}", *words],
                env=self.environment, cwd=self.directory, stdout=log, stderr=log)
        self.nodes.append(node)
        return node

    def _log(self, node: subprocess.Popen) -> Path:
        return self.directory / f"node-{self.nodes.index(node)}.log"

    def _start_head(self, num_cpus: int, dashboard_port: int) -> None:
        http_port, grpc_port = free_ports(2)
        head = self._start("--head", f"--port={self.gcs_port}", f"--dashboard-port={dashboard_port}",
                           "--dashboard-host=127.0.0.1", f"--num-cpus={num_cpus}", f"--temp-dir={self.directory}/t",
                           f"--dashboard-agent-listen-port={http_port}", f"--dashboard-agent-grpc-port={grpc_port}")
        wait_until(lambda: self._ask("/api/version") is not None, "the head answers", [head], self._log(head))

    def _ask(self, path: str) -> requests.Response | None:
        try:
            return requests.get(self.address + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=5)
        except requests.RequestException:
            return None

    def _end(self) -> None:
        for node in reversed(self.nodes):
            node.send_signal(signal.SIGTERM)
        for node in reversed(self.nodes):
            try:
                node.wait(120)
            except subprocess.TimeoutExpired:
                for pid in [node.pid, *descendants(node.pid)]:
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def cluster(head_cpus: int, *node_cpus: int) -> Iterator[RunningCluster]:
    """A head and further nodes with so many CPUs each, while the block runs."""
    directory = Path(tempfile.mkdtemp(prefix="ray-"))  # short: socket paths are limited to 107 characters
    gcs_port, dashboard_port = free_ports(2)
    token = secrets.token_hex(32)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "OMP_NUM_THREADS": "1",
                    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    running = RunningCluster(f"http://127.0.0.1:{dashboard_port}", token, environment, directory, gcs_port)
    try:
        running._start_head(head_cpus, dashboard_port)
        for num_cpus in node_cpus:
            running.add_node(num_cpus)
        yield running
    finally:
        running._end()


def descendants(pid: int) -> list[int]:
    """Pids of the children of a process, of their children, and so on."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            children.setdefault(int(parent), []).extend([int(path.parent.name)] if state != "Z" else [])
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found[1:]


def wait_until(condition: Callable[[], bool], what: str, processes: list[subprocess.Popen], log: Path) -> None:
    """Fail after a while, or as soon as one of `processes` has ended."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {START_TIMEOUT_S} s: {what}"
        assert all(process.poll() is None for process in processes), f"a node ended before {what}: {log.read_text()}"
        time.sleep(0.5)
