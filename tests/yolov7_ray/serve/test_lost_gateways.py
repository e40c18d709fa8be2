"""What dies loses no request: gateways and replicas by kill -9, with requests in flight."""

import asyncio
import os
import signal
import threading

import pytest
from serving import ask, deployed, picture, register_blind_model

from yolov7_ray.serve.ingress.retry import Repeated, middlewares


class Proxy:
    """An application whose first attempts read so many messages and then answer nothing, as Ray Serve's proxy does."""

    def __init__(self, *reads: int) -> None:
        self.reads, self.seen = list(reads), []

    async def __call__(self, scope, receive, send) -> None:
        number = self.reads.pop(0) if self.reads else None
        self.seen.append(messages := [])
        while number is None or len(messages) < number:
            messages.append(await receive())
            if not messages[-1].get("more_body"):
                break
        if number is None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"answer"})


def part(body: bytes, more: bool) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


PARTS = [part(b"one", True), part(b"two", True), part(b"three", False), {"type": "http.disconnect"}]


def attempts(proxy: Proxy, parts=PARTS, method: str = "POST", path: str = "/v1/detect", **settings) -> list[dict]:
    """What is sent to a client."""
    coming, sent = list(parts), []

    async def receive() -> dict:
        return coming.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(Repeated(proxy, **settings)({"type": "http", "method": method, "path": path}, receive, send))
    return sent


@pytest.mark.parametrize("read", [0, 1, 2, 3])
def test_what_nobody_answered_is_passed_on_once_more_from_its_first_byte(read):
    proxy = Proxy(read)
    assert [message.get("body") for message in attempts(proxy)] == [None, b"answer"]
    assert proxy.seen == [PARTS[:read], PARTS[:3]]
    proxy = Proxy(read, read)
    assert attempts(proxy) == [] and len(proxy.seen) == 2, "once, so that a request that kills ends"


@pytest.mark.parametrize("changes", [
    {"path": "/other/application"}, {"method": "DELETE"}, {"kept_bytes": 5}, {"parts": [PARTS[0], PARTS[3]]}])
def test_what_may_not_be_repeated_or_is_not_kept_is_not(changes):
    proxy = Proxy(2)
    assert attempts(proxy, **changes) == [] and len(proxy.seen) == 1


def test_what_is_answered_is_answered_once():
    proxy = Proxy()
    assert len(attempts(proxy)) == 2 and len(proxy.seen) == 1
    assert len(attempts(Proxy(1), parts=[part(b"", False)], method="GET", path="/anything")) == 2


def test_ray_serve_finds_the_middleware():
    from ray._common.utils import import_attr
    from ray.serve._private.http_util import validate_http_proxy_callback_return

    from yolov7_ray.serve.ingress.retry import ENVIRONMENT

    (path,) = ENVIRONMENT.values()
    assert import_attr(path) is middlewares and validate_http_proxy_callback_return(middlewares())


def pids(deployment: str) -> set[int]:
    """Processes of a deployment's replicas."""
    from ray.util.state import list_actors

    name = f"ServeReplica:yolov7:{deployment}"
    return {actor.pid for actor in list_actors(filters=[("state", "=", "ALIVE")], limit=1000) if actor.class_name == name}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 1])
def test_killed_gateways_and_replicas_lose_nothing(ray_session, tmp_path, replicas):
    """Every process of the deployment is killed at once, whatever their number: Ray Serve starts others."""
    registry = str(tmp_path / "registry")
    for name in ("shapes", "cars"):
        register_blind_model(registry, tmp_path, name)
    with deployed(registry, replicas=replicas, cpus_per_replica=0.2) as url:
        stop, answers, asked = threading.Event(), [], threading.Semaphore(0)

        def keep_asking() -> None:
            while not stop.is_set():
                asked.release()
                answers.append(ask(f"{url}/v1/detect", picture()))

        clients = [threading.Thread(target=keep_asking) for _ in range(4)]
        for client in clients:
            client.start()
        for deployment in ("Gateway", "detector-shapes", "Gateway"):
            for _ in range(40):
                assert asked.acquire(timeout=120)
            killed = pids(deployment)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            assert len(killed) >= 1
        for _ in range(40):
            assert asked.acquire(timeout=120)
        stop.set()
        for client in clients:
            client.join(120)
    assert {answer.status for answer in answers} == {200} and len(answers) > 100
