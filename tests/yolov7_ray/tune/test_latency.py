"""Costs of a model before it is trained."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from training_jobs import train_job

from yolov7 import ARCHITECTURES
from yolov7_ray import storage
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune import latency
from yolov7_ray.tune.latency import device_name, measure_latency, model_costs, needs_latency


def job(width: float = 0.25, size_px: int = 64, **changes):
    model = {"architecture": "yolov7-tiny", "depth": 0.5, "width": width}
    return validate(train_job("data", "runs", model=model, data={"image_size_px": size_px}, **changes))


@pytest.mark.parametrize(("name", "size_px", "parameters", "gflops"), [
    ("yolov7-tiny", 640, 6_219_709, 13.7), ("yolov7", 640, 36_905_341, 104.5), ("yolov7-w6", 1280, 70_394_300, 359.7)])
def test_costs_are_those_of_the_deployed_model(name, size_px, parameters, gflops):
    """The README's table; W6 without its auxiliary head."""
    found = model_costs(validate(train_job("data", "runs", model={"architecture": name},
                                           data={"image_size_px": size_px})), 80)
    assert found["parameters"] == parameters and found["gflops"] == pytest.approx(gflops, abs=0.06)


def test_wider_and_larger_costs_more():
    narrow, wide, large = (model_costs(job(*shape), 4) for shape in ((0.25, 64), (1.0, 64), (0.25, 128)))
    assert wide["gflops"] > 3 * narrow["gflops"] and wide["parameters"] > 3 * narrow["parameters"]
    assert large["gflops"] == pytest.approx(4 * narrow["gflops"])
    assert large["parameters"] == narrow["parameters"]


def test_latency_is_the_median_of_what_the_endpoints_engine_takes(monkeypatch):
    ran = []
    took = {1: iter([9.0, 0.010, 0.013, 0.011, 0.012, 0.020]), latency.SERVING_BATCH: iter([9.0] + [0.040] * 5)}
    now = waited = 0.0

    class Engine:
        def __init__(self, model, device, precision):
            assert model.model.is_folded and device.type == "cpu" and precision == "fp32" and torch.get_num_threads() == 1

        def predict(self, images):
            nonlocal now, waited
            assert images.shape[1:] == (3, 64, 64) and images.dtype == torch.uint8
            ran.append(len(images))
            now += next(took[len(images)]) + 5.0
            waited += 5.0

    monkeypatch.setattr(latency, "ENGINES", {"torch": Engine})
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now)
    monkeypatch.setattr(latency, "waited_s", lambda: waited)
    threads = torch.get_num_threads()
    found = measure_latency(job().build_architecture(), 4, 64, torch.device("cpu"), 1)
    assert ran == [1] * 6 + [8] * 6 and torch.get_num_threads() == threads
    assert found["latency_ms"] == pytest.approx(12.0) and found["latency_ms_spread"] == pytest.approx(2.0)
    assert found["latency_batch_ms"] == pytest.approx(5.0)
    assert found["device"] == device_name(torch.device("cpu"), 1) and found["device"].endswith(", 1 thread")


def test_a_model_is_measured_once_in_a_search(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    first = latency.latency(str(tmp_path), job(), 4)
    assert 0 < first["latency_ms"] and 0 < first["latency_batch_ms"] and first["load"] >= 0
    monkeypatch.setattr(latency, "measure_latency", lambda *_: {"latency_ms": 1.0})
    assert latency.latency(str(tmp_path), job(batch_size=4), 4) == first, "the same model"
    other = [latency.latency(str(tmp_path), *arguments) for arguments in (
        (job(0.5), 4), (job(size_px=96), 4), (job(), 5), (job(resources={"cpus_per_worker": 2}), 4))]
    assert other == [{"latency_ms": 1.0}] * 4
    files = [file.path for file in storage.list_files(str(tmp_path))]
    assert len(files) == 5 and all(path.startswith("latency/") for path in files)


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/schedstat"), reason="Linux counts it")
def test_the_time_in_which_others_have_the_core_is_counted():
    stop, waited = threading.Event(), latency.waited_s()
    cpu = min(os.sched_getaffinity(0))
    other = subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"])
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
        end = threading.Timer(60, stop.set)
        end.start()
        while latency.waited_s() - waited < 0.02 and not stop.is_set():
            pass
        end.cancel()
    finally:
        os.sched_setaffinity(0, before)
        other.kill()
        other.wait()
    assert not stop.is_set(), "it shared the core with another program, and waited for it"


@pytest.mark.parametrize(("changes", "needed"), [
    ({}, False), ({"objectives": {"ap": "max", "latency_ms": "min"}}, True),
    ({"constraints": {"latency_batch_ms": "<= 3"}}, True), ({"constraints": {"gflops": "<= 3"}}, False)])
def test_latency_is_measured_if_the_search_asks_for_it(changes, needed):
    search = {"model.width": {"choice": [0.25, 0.5]}}
    assert needs_latency(validate({"kind": "tune", "train": train_job("d", "r"), "search": search} | changes)) == needed


def test_all_members_of_the_family_can_be_kept_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "measure_latency", lambda architecture, *_: {"latency_ms": architecture.name})
    for name in ARCHITECTURES:
        spec = validate(train_job("data", "runs", model={"architecture": name}, data={"image_size_px": 128}))
        assert latency.latency(str(tmp_path), spec, 4) == {"latency_ms": name}
