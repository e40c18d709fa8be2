"""Fractions of a split: nested, the same for every seed, and nothing else is read."""

import numpy as np
import pytest
from training_jobs import train, train_job

from yolov7.images.config import AugmentConfig
from yolov7_ray.data.reading.chosen import ChosenSamples, chosen_indices
from yolov7_ray.data.reading.dataset import ArrowDataset, train_loader
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.kind import Upcoming
from yolov7_ray.train.dry_run import train_lines
from yolov7_ray.train.spec import Data
from yolov7_ray.train.starting_point import box_sizes_px, check_resumed, record_start


def test_choices_are_nested_and_random():
    choices = [set(chosen_indices(1000, number).tolist()) for number in (100, 200, 999)]
    assert [len(choice) for choice in choices] == [100, 200, 999]
    assert choices[0] < choices[1] < choices[2]
    assert 350 < np.mean(list(choices[0])) < 650


def test_how_many():
    assert [Data(fraction=share).num_chosen(23) for share in (1, 0.5, 0.1, 0.001)] == [23, 12, 2, 1]
    assert Data(max_images=5).num_chosen(23) == 5
    assert Data(max_images=50).num_chosen(23) == 23
    assert Data(fraction=0.5, max_images=5).num_chosen(23) == 5


def test_only_chosen_images_are_read(shapes_dataset):
    whole = ArrowDataset(shapes_dataset, "train")
    few = ChosenSamples(whole, 3)
    assert [few.image_bytes(i) for i in range(3)] == [whole.image_bytes(i) for i in few.indices]
    assert (few.class_counts() == whole.class_counts()[few.indices]).all()
    with pytest.raises(IndexError):
        few.image_bytes(3)
    fresh = ChosenSamples(whole, 3)
    held = {number for number, rows in enumerate(few.shard_rows) if rows}
    assert sum(few.shard_rows) == 3 and len(held) < len(whole.split.shards)
    steps = list(train_loader(fresh, size_px=64, augment=AugmentConfig(), batch_size=2, seed=0, epoch=0, rank=0,
                              world_size=1))
    assert sum(part.num_samples for step in steps for part in step) == 3
    assert set(fresh._open) == held


def test_anchors_and_counts_are_those_of_the_chosen_images(shapes_dataset, tmp_path):
    whole = ArrowDataset(shapes_dataset, "train")
    few = ChosenSamples(whole, 3)
    truths = [whole.truth(index) for index in few.indices]
    counts = np.bincount(np.concatenate([truth.labels for truth in truths]), minlength=len(whole.classes))
    assert few.objects_per_class == tuple(counts.tolist()) and sum(counts) < sum(whole.objects_per_class)
    spec = validate(train_job(shapes_dataset, str(tmp_path)) | {"data": {"image_size_px": 64, "max_images": 3}})
    expected = [truth.boxes_xyxy[~truth.iscrowd, 2:] - truth.boxes_xyxy[~truth.iscrowd, :2] for truth in truths]
    np.testing.assert_allclose(box_sizes_px(spec, whole.manifest), np.concatenate(expected), rtol=1e-6)


def test_the_dry_run_tells_and_resuming_with_another_fraction_is_refused(shapes_dataset, tmp_path):
    job = train_job(shapes_dataset, str(tmp_path))
    spec, other = (validate(job | {"data": {"image_size_px": 64, "fraction": share}}) for share in (0.5, 0.4))
    lines = train_lines(spec, Upcoming())
    assert ("images", "12 of the 23 of split 'train'") in lines
    assert dict(lines)["steps"].startswith("2 per epoch of 12 images in batches of 8")
    record_start(spec, str(tmp_path / "run"), ArrowDataset(shapes_dataset, "train").manifest)
    with pytest.raises(JobError, match=r"has learnt with data.fraction 0.5 \(the job says 0.4\)"):
        check_resumed(other, str(tmp_path / "run"))


@pytest.mark.ray
def test_training_with_a_fraction(ray_session, shapes_dataset, tmp_path):
    job = train_job(shapes_dataset, str(tmp_path), epochs=1, data={"image_size_px": 64, "max_images": 8})
    assert train(job, "few")["best"]["num_images"] == 8
