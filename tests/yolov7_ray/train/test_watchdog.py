"""A process that makes no step is detected, reports its stacks, and exits."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[3]


def watched(body: str, timeout_s: float = 0.4, waits: str = "None") -> subprocess.CompletedProcess:
    """Run ``body`` under a watchdog in a process of its own."""
    source = textwrap.dedent(f"""
        import sys, time
        sys.path[:0] = [{str(ROOT / "platform")!r}, {str(ROOT)!r}]
        from yolov7_ray.train.faults import watchdog

        def stuck_in_a_collective():
            time.sleep(60)

        def report(problem, stacks):
            print(problem, stacks, flush=True)

        class StorageWaits:
            def __init__(self, seconds):
                self.until = time.monotonic() + seconds
            def __call__(self, idle_s, is_late):
                return time.monotonic() < self.until
            def blame(self):
                return ", and no byte has moved to or from S3 at x"

        with watchdog.Watchdog({timeout_s}, report, {waits}) as dog:
    """) + textwrap.indent(textwrap.dedent(body), "    ") + "\nprint('through')\n"
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=300)


def test_a_hang_after_quick_steps_is_detected_and_reported():
    ended = watched("for _ in range(5):\n    dog.feed()\n    time.sleep(0.01)\nstuck_in_a_collective()")
    assert ended.returncode == 1 and "no step for" in ended.stdout
    assert "stuck_in_a_collective" in ended.stdout and "through" not in ended.stdout


def test_a_step_may_take_ten_times_as_long_as_the_slowest():
    ended = watched("dog.feed()\ntime.sleep(0.2)\ndog.feed()\ntime.sleep(1.0)\ndog.feed()")
    assert ended.returncode == 0 and "through" in ended.stdout, ended.stdout + ended.stderr


def test_the_first_step_may_take_long():
    ended = watched("time.sleep(1.0)")
    assert ended.returncode == 0 and "through" in ended.stdout, ended.stdout + ended.stderr


def test_the_process_exits_even_if_the_report_fails():
    ended = watched("dog.report = None\ndog.feed()\nstuck_in_a_collective()")
    assert ended.returncode == 1 and "through" not in ended.stdout


def test_waiting_for_storage_is_no_hang():
    ended = watched("dog.feed()\ntime.sleep(2)\ndog.feed()", waits="StorageWaits(60)")
    assert ended.returncode == 0 and "through" in ended.stdout, ended.stdout + ended.stderr


def test_waiting_in_vain_is_a_hang_that_names_the_storage():
    ended = watched("dog.feed()\nstuck_in_a_collective()", waits="StorageWaits(1)")
    assert ended.returncode == 1 and "s, and no byte has moved to or from S3 at x" in ended.stdout
