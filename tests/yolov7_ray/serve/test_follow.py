"""A replica that follows its alias: it changes between two batches, and what cannot be served changes nothing."""

import pytest
from serving import CLASSES, SIZE_PX, picture, register_blind_model

from yolov7.images.sample import decode_image
from yolov7_ray import storage
from yolov7_ray.detect.options import Options
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.registry.model_source import locate
from yolov7_ray.registry.registry import Registry
from yolov7_ray.registry.version import MODEL_FILE
from yolov7_ray.serve.app import build_app
from yolov7_ray.serve.replica import Current, Model, together
from yolov7_ray.serve.served import ServedInfo


@pytest.fixture
def registry(tmp_path) -> str:
    register_blind_model(str(tmp_path / "registry"), tmp_path, label=1)
    return str(tmp_path / "registry")


@pytest.fixture
def current(registry) -> Current:
    info = ServedInfo("m", asked="shapes@latest", registry=registry)
    return Current(info, locate("shapes@latest", registry), 4, image_size_px=None, rectangular=False)


def found(model: Model) -> set[float]:
    """Classes that the model sees."""
    return set(model.detector(picture()).labels.tolist())


def test_it_goes_on_with_what_the_alias_refers_to(current, registry, tmp_path, capfd):
    info = current.model.info
    assert (info.ref, info.version, info.classes, info.image_size_px) == ("shapes:1", "1", tuple(CLASSES), SIZE_PX)
    assert found(current.model) == {1} and info.engine == "torch fp32"
    before = current.model
    current.look()
    assert current.model is before and capfd.readouterr().out == ""
    register_blind_model(registry, tmp_path, label=0)
    assert current.model is before
    current.look()
    assert capfd.readouterr().out == "serve: m is now shapes:2\n"
    assert (current.model.info.ref, current.model.info.version) == ("shapes:2", "2") and found(current.model) == {0}
    Registry(registry).promote("shapes", "latest", "1")  # and back
    current.look()
    assert current.model.info.ref == "shapes:1" and found(current.model) == {1}


def test_requests_that_are_in_work_get_the_model_they_began_with(current, registry, tmp_path):
    """A batch may hold requests of both; each is answered by its own."""
    register_blind_model(registry, tmp_path, label=0)
    old = current.model.detector
    current.look()
    image, _ = old.fit(decode_image(picture()))
    answers = together([(detector, image, Options()) for detector in (old, current.model.detector, old)])
    assert [set(detections[:, 5]) for detections, *_ in answers] == [{1}, {0}, {1}]
    assert [size for _, size, _ in answers] == [2, 1, 2]


def test_what_cannot_be_served_changes_nothing_and_is_told_once(current, registry, tmp_path, capfd):
    version = register_blind_model(registry, tmp_path, label=0)
    storage.write_bytes(Registry(registry).file_uri(version, MODEL_FILE), b"damaged")
    for _ in range(3):
        current.look()
    told = capfd.readouterr().out
    assert told.count("\n") == 1 and told.startswith("serve: m stays shapes:1: shapes:2 cannot be served: ")
    assert found(current.model) == {1}
    register_blind_model(registry, tmp_path, label=0)
    current.look()
    assert current.model.info.ref == "shapes:3"


def test_a_registry_that_does_not_answer_changes_nothing(current, monkeypatch):
    def fail(*arguments):
        raise JobError("registry", "does not answer")

    monkeypatch.setattr("yolov7_ray.serve.replica.locate", fail)
    current.look()
    assert current.model.info.ref == "shapes:1"


def job(registry: str, model: str, **keys) -> dict:
    return {"kind": "serve", "registry": registry, "models": {"m": {"model": model} | keys}}


def test_only_names_can_be_followed(registry):
    for model in ("shapes:1", f"{registry}/../shapes-1.safetensors"):
        with pytest.raises(JobError, match="models.m.follow: .* is one exact model and never another one; give NAME or"):
            build_app(validate(job(registry, model, follow=True, image_size_px=64)))
    for follow in (True, False):
        app = build_app(validate(job(registry, "shapes@latest") | {"follow": follow, "reduced_decoding": not follow}))
        replica = app._bound_deployment.init_args[-1]._bound_deployment
        assert replica.init_args[-2:] == (not follow, follow) and replica.init_args[1].asked == "shapes@latest"


def test_what_auto_chose_is_told(registry, capfd, monkeypatch):
    from yolov7_ray.engines import choice

    monkeypatch.setattr(choice, "ENGINES", {"torch": choice.TorchEngine})
    monkeypatch.setattr(choice, "timed_ms", lambda work: [1.0, 2.0, 3.0])
    current = Current(ServedInfo("m"), locate("shapes@latest", registry), 1, engine="auto", rectangular=False)
    assert current.model.info.engine == "torch fp32"
    assert capfd.readouterr().out == "serve: m runs in torch fp32: torch fp32 2.0 ms\n"
