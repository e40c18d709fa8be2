"""Versions are immutable and complete or absent; aliases move by compare-and-swap; every failure has a clear error."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from serving import CLASSES, SIZE_PX, register_blind_model, tiny_model

from yolov7.checkpoints.weights import save_model
from yolov7_ray import storage
from yolov7_ray.errors import Corrupt, JobError, NotFound
from yolov7_ray.registry.model_source import load_model, locate
from yolov7_ray.registry.registry import Registry
from yolov7_ray.registry.version import ModelVersion

RECORD = {"architecture": {"name": "x"}, "num_classes": 2, "classes": ["a", "ü"], "image_size_px": 64,
          "metrics": {"ap": 0.5, "ap_small": None}, "training_metrics": {},
          "dataset_fingerprint": "f", "spec": {"epochs": 1},
          "parity": {"max_relative_difference": 1e-6}, "source": "runs/x"}


def register(registry: Registry, name: str = "shapes", content: bytes = b"weights") -> ModelVersion:
    return registry.register(name, {"model.safetensors": content}, RECORD)


def test_versions_count_up_and_keep_their_record(place):
    registry = Registry(place)
    first, second = register(registry), register(registry, content=b"other")
    assert (first.version, second.version) == ("1", "2")
    assert registry.versions("shapes") == ["1", "2"] and registry.names() == ["shapes"]
    assert registry.resolve("shapes") == registry.resolve("shapes:2") == second
    assert registry.resolve("shapes:1") == first
    file = first.files["model.safetensors"]
    assert storage.read_bytes(registry.file_uri(first, "model.safetensors"), file.sha256) == b"weights"
    assert file.num_bytes == 7
    assert first.classes == ["a", "ü"] and first.metrics["ap_small"] is None and first.created_at.endswith("+00:00")


def test_version_ten_is_newer_than_nine(tmp_path):
    registry = Registry(str(tmp_path))
    for _ in range(10):
        register(registry)
    assert registry.resolve("shapes").version == "10"


def test_alias_moves(place):
    registry = Registry(place)
    register(registry), register(registry)
    registry.promote("shapes", "production", "1")
    assert registry.resolve("shapes@production").version == "1"
    registry.promote("shapes", "production", "2")
    assert registry.resolve("shapes@production").version == "2"
    assert registry.aliases("shapes") == {"production": "2"}


def test_racing_writers_get_a_version_each(place):
    registry = Registry(place)
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda i: register(registry, content=str(i).encode()), range(6)))
    assert sorted(int(v.version) for v in versions) == [1, 2, 3, 4, 5, 6]
    assert registry.versions("shapes") == ["1", "2", "3", "4", "5", "6"]
    for number, version in enumerate(versions):
        assert storage.read_bytes(registry.file_uri(version, "model.safetensors")) == str(number).encode()


def test_racing_promotions_all_succeed(place):
    registry = Registry(place)
    for _ in range(4):
        register(registry)
    barrier = threading.Barrier(4)

    def promote(version: str) -> None:
        barrier.wait(120)
        registry.promote("shapes", "latest", version)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(promote, "1234"))
    assert registry.aliases("shapes")["latest"] in "1234"


def test_a_writer_that_died_leaves_no_version(tmp_path, monkeypatch):
    registry = Registry(str(tmp_path))
    register(registry)
    monkeypatch.setattr(storage, "create", dies_at("version.json", storage.create))
    with pytest.raises(KeyboardInterrupt):
        register(registry)
    monkeypatch.undo()
    assert registry.versions("shapes") == ["1"] and registry.resolve("shapes").version == "1"
    assert register(registry).version == "3", "the number of the unfinished version is not used again"


def dies_at(name: str, create):
    def dying(uri: str, data: bytes) -> None:
        if uri.endswith(name):
            raise KeyboardInterrupt
        create(uri, data)

    return dying


@pytest.mark.parametrize("ref, message", [
    ("cars", "cars: model 'cars' is not registered in {uri}; registered are shapes"),
    ("shapes@best",
     "shapes@best: alias 'best' of model 'shapes' does not exist in {uri}; aliases are latest; versions are 1"),
    ("shapes:7", "shapes:7: version 7 of model 'shapes' does not exist in {uri}; versions are 1"),
    ("Shapes!", "Shapes!: is no name of a registered model; give NAME, NAME@ALIAS or NAME:VERSION"),
])
def test_resolve_errors(tmp_path, ref, message):
    registry = Registry(str(tmp_path))
    register(registry)
    registry.promote("shapes", "latest", "1")
    with pytest.raises(JobError) as error:
        registry.resolve(ref)
    assert str(error.value) == message.format(uri=tmp_path)


def test_empty_registry(tmp_path):
    with pytest.raises(NotFound, match="nothing is registered there yet; run a publish job"):
        Registry(str(tmp_path / "none")).resolve("shapes")


def test_names_that_would_leave_the_registry_are_refused(tmp_path):
    registry = Registry(str(tmp_path / "registry"))
    with pytest.raises(JobError, match="is no name for a model"):
        register(registry, name="../shapes")
    register(registry)
    with pytest.raises(JobError, match="is no name for an alias"):
        registry.promote("shapes", "../x", "1")
    with pytest.raises(NotFound):
        registry.promote("shapes", "latest", "2")


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"name": "shapes"}', b"\xff\xfe"])
def test_damaged_record_is_corrupt(tmp_path, damage):
    registry = Registry(str(tmp_path))
    register(registry)
    (tmp_path / "shapes/1/version.json").write_bytes(damage)
    with pytest.raises(Corrupt, match="is no record of a model version"):
        registry.resolve("shapes")


def test_damaged_alias_is_corrupt(tmp_path):
    registry = Registry(str(tmp_path))
    register(registry)
    registry.promote("shapes", "latest", "1")
    (tmp_path / "shapes/aliases/latest.json").write_text("[]")
    with pytest.raises(Corrupt, match="is no alias"):
        registry.resolve("shapes@latest")


# --- from a reference to a model ------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """A finished run with two checkpoints, the first of them the best."""
    directory = tmp_path / "runs" / "night"
    for epoch, seed in ((1, 1), (2, 2)):
        checkpoint = directory / f"checkpoint-epoch-{epoch:04d}"
        checkpoint.mkdir(parents=True)
        save_model(checkpoint / "ema.safetensors", tiny_model(seed), CLASSES)
        (checkpoint / "spec.json").write_text(json.dumps({"data": {"image_size_px": SIZE_PX}}))
        (checkpoint / "metrics.json").write_text(json.dumps({"ap": 0.1 * epoch}))
    (directory / "results.json").write_text(json.dumps(
        {"best_checkpoint": "checkpoint-epoch-0001", "dataset_fingerprint": "abc"}))
    return directory


def same_weights(model, seed: int) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), tiny_model(seed).state_dict().values()))


def test_run_resolves_to_its_best_checkpoint(run):
    loaded = load_model(str(run))
    assert same_weights(loaded.model, 1) and loaded.classes == CLASSES and loaded.image_size_px == SIZE_PX
    assert loaded.source == str(run / "checkpoint-epoch-0001")
    assert loaded.record["metrics"] == {"ap": 0.1} and loaded.record["dataset_fingerprint"] == "abc"
    assert not loaded.model.training and not loaded.model.is_folded


def test_checkpoint_and_file_can_be_given(run):
    checkpoint = load_model(str(run / "checkpoint-epoch-0002") + "/")
    assert same_weights(checkpoint.model, 2) and checkpoint.record["dataset_fingerprint"] == "abc"
    file = load_model(str(run / "checkpoint-epoch-0002" / "ema.safetensors"))
    assert same_weights(file.model, 2) and file.image_size_px == SIZE_PX, "by the record beside it"


@pytest.mark.parametrize("beside", [True, False])
def test_a_file_tells_its_own_image_size_wherever_it_is_copied(place, tmp_path, beside):
    """What training and publishing write, alone in a directory; or beside a record of another size."""
    uri = storage.join(place, "copy", "model.safetensors")
    save_model(tmp_path / "model.safetensors", tiny_model(), CLASSES, image_size_px=192)
    storage.upload(tmp_path / "model.safetensors", uri)
    if beside:
        storage.write_json(storage.join(place, "copy", "spec.json"), {"data": {"image_size_px": 320}})
    assert load_model(uri).image_size_px == 192


def test_run_on_s3(run, s3):
    storage.upload_directory(run, s3)
    assert same_weights(load_model(s3).model, 1)


def test_registered_model(place, tmp_path):
    version = register_blind_model(place, tmp_path)
    loaded = load_model("shapes@latest", place)
    assert loaded.source == version.ref == "shapes:1" and loaded.model.is_folded and loaded.image_size_px == SIZE_PX


def test_located_model_is_immutable(tmp_path):
    registry = str(tmp_path / "registry")
    register_blind_model(registry, tmp_path, label=0)
    source = locate("shapes@latest", registry)
    register_blind_model(registry, tmp_path, label=1)
    assert source.load().source == "shapes:1" and load_model("shapes@latest", registry).source == "shapes:2"


def test_flipped_byte_in_weights_is_detected(tmp_path):
    version = register_blind_model(str(tmp_path / "registry"), tmp_path)
    path = tmp_path / "registry" / "shapes" / version.version / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt, match="sha256"):
        load_model("shapes", str(tmp_path / "registry"))


def test_load_errors(run, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"not a model at all")
    with pytest.raises(Corrupt, match="cannot be loaded as a model"):
        load_model(str(tmp_path / "bad.safetensors"))
    with pytest.raises(NotFound, match="model file does not exist"):
        load_model(str(tmp_path / "none.safetensors"))
    with pytest.raises(NotFound, match="holds no trained model"):
        load_model(str(tmp_path / "no" / "run"))
    with pytest.raises(JobError, match="names a registered model, but no registry is given"):
        load_model("shapes@latest")
    (run / "checkpoint-epoch-0001" / "ema.safetensors").unlink()
    with pytest.raises(NotFound, match="checkpoint has no ema.safetensors"):
        load_model(str(run))


def test_model_of_another_architecture_is_corrupt(tmp_path):
    """A file whose metadata and tensors disagree is refused, not half loaded."""
    from safetensors.torch import load_file
    from safetensors import safe_open
    from yolov7.checkpoints.weights import save_weights

    path = tmp_path / "model.safetensors"
    save_model(path, tiny_model(), CLASSES)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    architecture = json.loads(metadata["architecture"]) | {"activation": "silu", "strides": [8, 16]}
    tensors = load_file(path)
    save_weights(path, dict(list(tensors.items())[:-3]), metadata | {"architecture": json.dumps(architecture)})
    with pytest.raises(Corrupt, match="cannot be loaded as a model"):
        load_model(str(path))


def test_record_survives_json(tmp_path):
    version = register(Registry(str(tmp_path)))
    assert ModelVersion.from_json(version.to_json(), "here") == version
    assert ModelVersion.from_json(replace(version, spec=None).to_json(), "here").spec is None
