"""A sweep of which ten processes are killed at random ends as it does without that."""

import subprocess
import sys

import pytest
from training_jobs import ROOT


@pytest.mark.ray
@pytest.mark.long
def test_ten_processes_of_a_sweep_are_killed_at_random():
    found = subprocess.run([sys.executable, ROOT / "tests/bench/chaos.py", "--sweep", "4", "--epochs", "12", "--kills",
                            "10"], capture_output=True, text=True, timeout=3600)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "10 kills survived: bitwise equal" in found.stdout
