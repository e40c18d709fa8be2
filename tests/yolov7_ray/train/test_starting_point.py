"""Initial weights and anchors are determined, or rejected with a reason, before any worker starts."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import coco_source, ingest_here, make_coco
from training_jobs import train_job

from yolov7.architectures.family import architecture
from yolov7.training.stage_clock import Clock
from yolov7.model.detector import build_model
from yolov7.checkpoints.official import import_official
from yolov7.checkpoints.official_names import official_names, official_shapes
from yolov7.model.reparameterize import reparameterize
from yolov7.checkpoints.weights import save_model
from yolov7_ray.train import starting_point
from yolov7_ray import storage
from yolov7_ray.data.reading.box_sizes import read_box_sizes
from yolov7_ray.data.reading.cache import NodeCache
from yolov7_ray.data.reading.dataset import ArrowDataset
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.errors import Corrupt, JobError, NotFound
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.spec import TrainSpec
from yolov7_ray.train.build import build_state
from yolov7_ray.train.loop import CLASS_AP, EpochBatches
from yolov7_ray.train.trainer import check_run
from yolov7_ray.evaluate.rank_share import evaluate_share, Worker

BASE = architecture("yolov7-tiny").scaled(depth=0.5, width=0.25)


def spec(dataset: str, model: dict | None = None, **changes) -> TrainSpec:
    """The small train job of test_train, with some of the model's keys changed."""
    job = train_job(dataset, "runs", **changes)
    return validate(job | {"model": job["model"] | (model or {})})


# --- anchors ------------------------------------------------------------------------------------------


def test_box_sizes_are_those_of_the_objects_in_local_and_s3_datasets(place, tmp_path):
    ingest_here(coco_source(make_coco(tmp_path / "raw")), place)
    dataset = ArrowDataset(place, "train", NodeCache(tmp_path / "cache"))
    expected = []
    for index in range(len(dataset)):
        truth = dataset.truth(index)
        sizes = (truth.boxes_xyxy[:, 2:] - truth.boxes_xyxy[:, :2]) / max(truth.size_hw)
        expected.append(sizes[~truth.iscrowd])
    found = read_box_sizes(place, load_manifest(place), "train")
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-6)
    assert len(found) == 11, "twelve objects, of which one is a crowd"


def test_a_missing_and_a_damaged_shard_are_named(tmp_path):
    uri = str(tmp_path / "data")
    ingest_here(coco_source(make_coco(tmp_path / "raw")), uri)
    manifest = load_manifest(uri)
    shard = storage.join(uri, manifest.split("train").shards[0].path)
    storage.write_bytes(shard, storage.read_bytes(shard)[:-300])
    with pytest.raises(Corrupt, match="the shard is damaged"):
        read_box_sizes(uri, manifest, "train")
    storage.delete(shard)
    with pytest.raises(NotFound, match="a shard of the dataset is missing; run the ingest job again"):
        read_box_sizes(uri, manifest, "train")


def test_fitted_anchors_are_deterministic_and_miss_no_more_than_the_default(shapes_dataset):
    auto = spec(shapes_dataset, {"anchors": "auto"})
    sizes_px = starting_point.box_sizes_px(auto, load_manifest(shapes_dataset))
    fit, again = (starting_point.fitted_anchors(auto, sizes_px) for _ in range(2))
    default = starting_point.measure_fit(BASE.anchors_px, sizes_px, auto)
    assert fit == again and fit.num_boxes == len(sizes_px)
    assert fit.recall >= default.recall and fit.recall > 0.98 and fit.fitness > default.fitness
    areas = np.prod(np.array(fit.anchors_px), axis=-1)
    assert np.shape(fit.anchors_px) == (3, 3, 2) and (np.diff(areas.ravel()) >= 0).all(), "fine levels have small ones"


def test_auto_is_fitted_once_for_a_run(shapes_dataset, tmp_path):
    auto, run = spec(shapes_dataset, {"anchors": "auto"}), str(tmp_path / "run")
    fitted = starting_point.with_fitted_anchors(auto, run)
    assert fitted.build_architecture().anchors_px == fitted.model.anchors != BASE.anchors_px
    assert starting_point.with_fitted_anchors(fitted, run) is fitted
    own = tuple(tuple((w + 1, h + 1) for w, h in level) for level in BASE.anchors_px)
    earlier = spec(shapes_dataset, {"anchors": own})
    storage.write_json(storage.join(run, "spec.json"), earlier.model_dump(mode="json"))
    assert starting_point.with_fitted_anchors(auto, run).model.anchors == own, "a run that goes on keeps its anchors"
    check_run(auto, run)
    with pytest.raises(JobError, match=r"has learnt with model.anchors .*the job says 'default'"):
        check_run(spec(shapes_dataset), run)
    with pytest.raises(JobError, match=r"has learnt with model.freeze \[\] \(the job says \['backbone'\]\)"):
        check_run(spec(shapes_dataset, {"anchors": "auto", "freeze": ["backbone"]}), run)


def test_fewer_boxes_than_anchors(shapes_dataset):
    with pytest.raises(JobError, match="model.anchors: auto: 3 boxes of positive size arrived; give default, or"):
        starting_point.fitted_anchors(spec(shapes_dataset, {"anchors": "auto"}), np.ones((3, 2)))


def test_a_loss_without_auxiliary_head_trains_none(shapes_dataset):
    job = {"architecture": "yolov7-w6", "depth": 0.33, "width": 0.25}
    without = spec(shapes_dataset, job, loss={"auxiliary": "none"}).build_architecture()
    assert not without.has_auxiliary and spec(shapes_dataset, job).build_architecture().has_auxiliary
    assert not build_model(without, 2).head.auxiliary_predictors


# --- weights ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A model of two other classes whose anchors are its own."""
    torch.manual_seed(0)
    anchors_px = tuple(tuple((w / 2, h / 2) for w, h in level) for level in BASE.anchors_px)
    path = tmp_path_factory.mktemp("weights") / "two.safetensors"
    save_model(path, build_model(BASE.replace(anchors_px=anchors_px), 2), ["cat", "dog"])
    return str(path)


def test_weights_of_other_classes_are_loaded_except_the_predictors(shapes_dataset, weights, tmp_path):
    job = spec(shapes_dataset, {"weights": weights})
    dataset = ArrowDataset(shapes_dataset, "train", NodeCache(tmp_path))
    state, loaded = build_state(job, dataset, torch.device("cpu")), starting_point.starting_model(job)
    assert len(state.classes) > 2
    source = loaded.model.state_dict()
    for name, value in state.model.state_dict().items():
        if not name.startswith("head.lead_predictors"):
            assert torch.equal(value, source[name]), name
    taken, tensors = starting_point.count_matching_tensors(job, loaded, len(state.classes))
    assert tensors - taken == 3 * 3, "weight, bias and factor of three predictors; what is added has the channels"
    assert state.model.architecture.anchors_px == loaded.model.architecture.anchors_px, "they were learnt with these"
    given = spec(shapes_dataset, {"weights": weights, "anchors": BASE.anchors_px})
    own = build_state(given, dataset, torch.device("cpu")).model
    assert own.architecture.anchors_px == BASE.anchors_px
    assert own.anchors_px.tolist() == np.array(BASE.anchors_px).tolist()


def test_an_imported_official_checkpoint_can_be_started_from(shapes_dataset, tmp_path):
    torch.manual_seed(1)
    source = build_model(BASE, 3)
    own, shapes = source.state_dict(), official_shapes(source)
    official = {name: own[ours].reshape(shapes[name]) if ours else torch.zeros(shapes[name])
                for name, ours in official_names(source).items()}
    torch.save({"model": official, "names": ["a", "b", "c"]}, tmp_path / "official.pt")
    imported, classes = import_official(tmp_path / "official.pt", BASE)
    save_model(tmp_path / "imported.safetensors", imported, classes)
    job = spec(shapes_dataset, {"weights": str(tmp_path / "imported.safetensors"), "freeze": ["backbone"]})
    dataset = ArrowDataset(shapes_dataset, "train", NodeCache(tmp_path))
    state = build_state(job, dataset, torch.device("cpu"))
    assert len(state.classes) == 4 and not state.model.backbone.stem[0].conv.weight.requires_grad
    assert torch.equal(state.model.neck.top_down[0].reduce.conv.weight, source.neck.top_down[0].reduce.conv.weight)


def test_folded_weights_and_those_of_another_architecture_are_refused(shapes_dataset, weights, tmp_path):
    loaded = starting_point.starting_model(spec(shapes_dataset, {"weights": weights}))
    folded = str(tmp_path / "folded.safetensors")
    save_model(folded, reparameterize(loaded.model), ["cat", "dog"])
    with pytest.raises(JobError, match="folded.safetensors: is folded: .*; give the run or checkpoint"):
        check_run(spec(shapes_dataset, {"weights": folded}), str(tmp_path / "run"))
    with pytest.raises(JobError, match=r"two.safetensors: only \d+ of \d+ tensors fit this architecture; give weights"):
        check_run(spec(shapes_dataset, {"weights": weights, "width": 0.5}), str(tmp_path / "run"))


# --- what an epoch shows ------------------------------------------------------------------------------


def test_image_weights_are_a_function_of_the_history_that_checkpoints_hold(shapes_dataset, tmp_path):
    job = spec(shapes_dataset, data={"image_size_px": 64, "image_weights": True, "multi_scale": 0.5}, seed=3,
               resources={"workers": 2})
    dataset = ArrowDataset(shapes_dataset, "train", NodeCache(tmp_path / "cache"))
    worker = Worker(1, 2, torch.device("cpu"), 0, "fp32")
    state, resumed = (build_state(job, dataset, worker.device) for _ in range(2))
    batches = EpochBatches(job, dataset, worker, Clock())
    before = batches.weights(state.history)
    state.epoch = 1
    state.history.append({"epoch": 1, CLASS_AP: [0.9] + [None] * (len(dataset.classes) - 1)})
    state.save(tmp_path)
    resumed.load(tmp_path)
    after = batches.weights(resumed.history)
    found = dataset.class_counts()[:, 0] > 0
    assert (after[found] < before[found]).all() and (after[~found] == before[~found]).all()
    shown = [[(batch.image_ids.tolist(), batch.images.shape, share) for [(batch, share)] in
              EpochBatches(job, dataset, worker, Clock())(each)] for each in (state, resumed)]
    assert shown[0] == shown[1]
    assert EpochBatches(spec(shapes_dataset), dataset, worker, Clock()).weights(state.history) is None


@pytest.mark.parametrize("options", [
    {}, {"rectangular": True}, {"test_time_augmentation": True}, {"multi_label": False}, {"class_agnostic": True}])
def test_ranks_together_see_every_image_once(shapes_dataset, weights, tmp_path, options):
    evaluation = spec(shapes_dataset, evaluation={"batch_size": 2, "confidence_threshold": 0.0} | options).evaluation
    dataset = ArrowDataset(shapes_dataset, "val", NodeCache(tmp_path))
    torch.manual_seed(0)
    model = build_model(BASE, len(dataset.classes)).eval()
    ranks = [Worker(rank, 2, torch.device("cpu"), 0, "fp32") for rank in range(2)]
    states = [evaluate_share(model, dataset, evaluation, rank, size_px=64, batch_size=4).evaluator.state() for rank in ranks]
    ids = np.concatenate([state["image_ids"] for state in states])
    assert sorted(ids) == sorted(dataset.truth(index).image_id for index in range(len(dataset)))
    alone = dataclasses.replace(ranks[0], world_size=1)
    whole = evaluate_share(model, dataset, evaluation, alone, size_px=64, batch_size=4).evaluator.state()
    assert sum(state["num_detections"].sum() for state in states) == whole["num_detections"].sum() > 0
    if not options.get("multi_label", True) or options.get("class_agnostic"):
        plain = spec(shapes_dataset, evaluation={"batch_size": 2, "confidence_threshold": 0.0}).evaluation
        most = evaluate_share(model, dataset, plain, alone, size_px=64, batch_size=4).evaluator.state()
        assert (whole["num_detections"] < most["num_detections"]).all()
