"""The operator's side of an endpoint: finds it, here or on a cluster, and has a command run there."""

import os
from collections.abc import Mapping
from typing import Any

from ...cluster.jobs_api import Cluster, Unreachable
from ...cluster.local_ray import LOOPBACK
from ...cluster.session_directory import Reached, reachable
from ...errors import JobError
from . import command
from .request import request

DASHBOARD = "http://127.0.0.1:8265"
OPTIONS = ("weight", "steps", "hold", "shadow", "sticky", "limits")


def operate(action: str, given: Mapping[str, Any]) -> int:
    """Carry out list, status, roll-out, roll-back or stop, with the words of the command line; the exit status."""
    wanted = request(given["target"], **{key: given[key] for key in OPTIONS}) if action == "roll-out" else None
    words = command.words(action, wanted, given.get("model"))
    address = given["address"] or os.environ.get("RAY_API_SERVER_ADDRESS")
    private = None if address else _private()
    if private and action != "stop":
        return command.main(words, private.address)
    cluster = _cluster(private.dashboard if private else address, given["insecure"])
    if action == "stop":
        print(cluster.stop_endpoint())
        return 0
    status, said = cluster.call(command.__name__, words)
    print(said, end="")
    return status


def _private() -> Reached | None:
    """The private Ray of this machine that has an endpoint, if there is one; its token is set in the environment."""
    found = []
    for reached in reachable(os.environ.get("RAY_TMPDIR", "/tmp")):
        os.environ.update(LOOPBACK, RAY_AUTH_TOKEN=reached.token)
        found += [reached] if Cluster(reached.dashboard).has_endpoint() else []
    if len(found) > 1:
        raise JobError("endpoint", f"there are {len(found)} on this machine",
                       f"give --address {' or '.join(each.dashboard for each in found)}")
    if found:
        os.environ["RAY_AUTH_TOKEN"] = found[0].token
    return found[0] if found else None


def _cluster(address: str | None, insecure: bool) -> Cluster:
    try:
        return Cluster(address or DASHBOARD, insecure)
    except Unreachable:
        if address:
            raise
        raise JobError("endpoint", "none runs on this machine", "submit a serve job, or give --address") from None
