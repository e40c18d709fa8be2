"""A short soak: everything happens once to an endpoint on two nodes, and no request is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "bench/soak_serve.py"


@pytest.mark.long
def test_nothing_that_happens_loses_a_request():
    done = subprocess.run([sys.executable, SOAK, "--requests", "1", "--quiet", "500"], text=True, capture_output=True,
                          timeout=2400, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["lost"] == 0 and found["requests"] > 1000
    assert found["events"] == dict.fromkeys(("upgrade", "promoted", "rolled_back", "kill_replica", "kill_gateway",
                                             "kill_controller", "drain_node", "kill_node"), 1)
    assert {title.partition(":")[0] for title, *_ in found["memory: MB, MB per 10,000 requests"]} >= {"ServeReplica"}
