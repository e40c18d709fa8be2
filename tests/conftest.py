"""For every test: one thread per process, and two processes of tests for two cores."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The detector's tests run beside all others, which stay together: they share one Ray, and kill its processes."""
    detector = Path(__file__).parent / "yolov7"
    for item in items:
        if detector not in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("platform"))
