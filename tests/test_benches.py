"""Every bench still runs, at its smallest: its figures mean nothing here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHES = ROOT / "tests" / "bench"
SMALLEST = {
    "command_line": ["--rounds", "1"],
    "engines": ["--size-px", "64", "--rounds", "1"],
    "ingest": ["--megabytes", "2", "--rounds", "1", "--only", "worker", "annotations", "--annotations-mb", "1"],
    "listing": ["--files", "2000", "--names", "1000"],
    "loss": ["--repeats", "1", "--objects", "20"],
    "metrics": [],
    "nms": [],
    "order": ["--images", "10000", "--shards", "100", "--nodes", "4", "--epochs", "1"],
    "s3": ["--images", "20", "--size-px", "64", "--rounds", "1"],
    "samples": ["--rounds", "1", "--size-px", "160"],
    "step": ["--size-px", "64", "--batch-size", "2", "--rounds", "1"],
}


@pytest.mark.long
@pytest.mark.parametrize("name", SMALLEST)
def test_a_bench_runs(name):
    ended = subprocess.run([sys.executable, BENCHES / f"bench_{name}.py", *SMALLEST[name]], text=True,
                           env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "platform")))},
                           capture_output=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
