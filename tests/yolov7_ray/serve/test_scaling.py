"""How many replicas and gateways there are, and what each model has of its own."""

import pytest
from serving import register_blind_model

from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.kinds import kind_of
from yolov7_ray.serve.served import ServedInfo
from yolov7_ray.serve.spec import ServeSpec


def spec(replicas=1, **models: dict) -> ServeSpec:
    models = models or {"a": {}}
    return validate({"kind": "serve", "registry": "r", "replicas": replicas, "cpus_per_replica": 2,
                     "models": {name: {"model": f"{name}@x"} | keys for name, keys in models.items()}})


RANGE = {"min": 0, "max": 8, "target_queue": 3}


@pytest.mark.parametrize("replicas, models, numbers, gateways, demand", [
    (1, {}, [(1, 1)], 1, "1 model of 1 replica"),
    (3, {}, [(3, 3)], 3, "1 model of 3 replicas"),
    (2, {"a": {}, "b": {}}, [(2, 2), (2, 2)], 2, "2 models of 2 replicas"),
    (RANGE, {}, [(0, 8)], 2, "1 model of 0 replicas"),
    (1, {"a": {}, "b": {"replicas": RANGE}}, [(1, 1), (0, 8)], 2, "2 models of 1 replica in all"),
    ({"max": 4, "min": 3}, {"a": {"replicas": 5}, "b": {}}, [(5, 5), (3, 4)], 5, "2 models of 8 replicas in all"),
])
def test_numbers(replicas, models, numbers, gateways, demand):
    found = spec(replicas, **models)
    assert [(each.min, each.max) for each in found.autoscaling.values()] == numbers
    assert found.num_gateways == gateways
    needed = kind_of(found).demand(found)
    assert needed.what == demand and needed.count == sum(low for low, _ in numbers) and needed.cpus_each == 2


@pytest.mark.parametrize("replicas, problem", [
    (0, "replicas"), ({"min": 3, "max": 2}, "min 3 is above max 2"), ({"max": 0}, "max"), ({"min": -1, "max": 2}, "min"),
    ({"max": 2, "target_queue": 0}, "target_queue")])
def test_numbers_that_cannot_work(replicas, problem):
    with pytest.raises(JobError, match=problem):
        spec(replicas)


def test_a_model_has_the_jobs_keys_unless_it_has_its_own():
    job = validate({"kind": "serve", "registry": "r", "engine": "openvino", "max_batch_size": 4,
                    "confidence_threshold": 0.3, "models": {
                        "a": {"model": "a"}, "b": {"model": "b", "engine": "torch", "precision": "bf16",
                                                   "max_batch_size": 2, "confidence_threshold": 0, "iou_threshold": 1}}})
    first, second = (job.of(model) for model in job.models.values())
    assert (first.engine, first.precision, first.max_batch_size, first.confidence_threshold, first.iou_threshold) == (
        "openvino", "auto", 4, 0.3, 0.45)
    assert (second.engine, second.precision, second.max_batch_size, second.confidence_threshold,
            second.iou_threshold) == ("torch", "bf16", 2, 0, 1)


def test_ray_serve_is_asked_for_these(tmp_path):
    from yolov7_ray.serve.app import build_app

    registry = str(tmp_path / "registry")
    register_blind_model(registry, tmp_path)
    app = build_app(validate({
        "kind": "serve", "registry": registry, "confidence_threshold": 0.4, "models": {
            "one": {"model": "shapes"},
            "many": {"model": "shapes", "replicas": RANGE, "max_batch_size": 2, "iou_threshold": 0.7}}}))
    infos, _, max_in_flight, _, one, many = app._bound_deployment.init_args
    assert [(info.confidence, info.iou) for info in infos] == [(0.4, 0.45), (0.4, 0.7)]
    assert app._bound_deployment.num_replicas == 2
    assert max_in_flight == [(64 + 2 * 8 * 1) // 2, (64 + 2 * 2 * 8) // 2]
    assert one._bound_deployment.num_replicas == 1
    scaling = many._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (0, 8, 3)


def test_a_requests_own_thresholds_go_before_the_models():
    info = ServedInfo("a", "a:1", "1", "yolov7-tiny", 64, ("x",), confidence=0.3, iou=0.6)
    assert info.options() == info.options(None, None)
    assert (info.options().confidence, info.options().iou, info.options().max_detections) == (0.3, 0.6, 300)
    assert (info.options(0.0, 1.0, 5).confidence, info.options(0.0, 1.0, 5).iou) == (0.0, 1.0)


def test_versions_of_a_model_side_by_side_by_name(tmp_path):
    from yolov7_ray.serve.app import build_app

    registry = str(tmp_path / "registry")
    for label in (1, 0):
        register_blind_model(registry, tmp_path, label=label)
    app = build_app(validate({"kind": "serve", "registry": registry, "models": {
        "old": {"model": "shapes:1"}, "new": {"model": "shapes@latest", "confidence_threshold": 0.5}}}))
    infos, *_, old, new = app._bound_deployment.init_args
    assert [(info.name, info.ref, info.confidence) for info in infos] == [("old", "shapes:1", 0.25), ("new", "shapes:2", 0.5)]
    sources = [replica._bound_deployment.init_args[0].ref for replica in (old, new)]
    assert sources == ["shapes:1", "shapes:2"]


def test_a_candidate_has_as_many_replicas_as_its_share_needs():
    from yolov7_ray.serve.rollout.candidate import Recipe

    assert Recipe({"num_replicas": 1}, ()).beside() == {"num_replicas": 1, "autoscaling_config": None}
    assert Recipe({"num_replicas": 3}, ()).beside()["autoscaling_config"] == {
        "min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 2}
    scaling = {"min_replicas": 0, "max_replicas": 8, "target_ongoing_requests": 16}
    assert Recipe({"autoscaling_config": scaling}, ()).beside()["autoscaling_config"] == scaling | {"min_replicas": 1}
