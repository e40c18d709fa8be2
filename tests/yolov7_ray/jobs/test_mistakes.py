"""User errors at the command line: each is reported as one message.

Invalid requests to the endpoint (image bomb, empty body, wrong content type, unknown model) are tested over HTTP in
test_serve.py.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import coco_source, ingest_here, make_coco, write_coco_json
from training_jobs import train_job

import submit
from yolov7.architectures.family import ARCHITECTURES
from yolov7.model.detector import build_model
from yolov7.checkpoints.weights import save_model
from yolov7_ray.jobs import admission
from yolov7_ray.data.reading.cache import NodeCache
from yolov7_ray.data.reading.dataset import ArrowDataset
from yolov7_ray.errors import Corrupt, JobError
from yolov7_ray.jobs.job_file import validate


def error_of(capsys, job: dict, *words: str) -> str:
    """Standard error of ``submit.py``; it must be one error, without a traceback, with exit status 2."""
    path = Path("job.yaml")
    path.write_text(yaml.safe_dump(job))
    assert submit.main([str(path), *words]) == JobError.exit_status
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


@pytest.fixture
def dataset(shapes_dataset, tmp_path, monkeypatch) -> Path:
    """A copy of a dataset that a test may damage; the working directory is beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLOV7_CACHE_DIR", str(tmp_path / "cache"))
    return Path(shutil.copytree(shapes_dataset, tmp_path / "data"))


KEYS = [
    (["--set", "optimizer.lr=0.1"], r"job.yaml|--set", r"optimizer\.lr: .*unknown.*learning_rate"),
    (["--set", "epochs=many"], r"--set", r"epochs: .*'many'.*integer"),
    (["--set", "model.architecture=yolov7z"], r"--set", r"'yolov7z' is unknown; choose yolov7-tiny"),
    (["--set", "data.image_size_px=100"], r"", r"100 is not a multiple .* choose 96 or 128"),
    (["--set", "resources.workers=99"], r"", r"8 images cannot be shared by 99 workers"),
    (["--set", "resources.workers=[4, 1]"], r"", r"\[4, 1\] asks for more at least than at most; give \[least, most\]"),
    (["--set", "resources.workers=[0, 2]"], r"", r"'\[0, 2\]' is no number of workers; give one, or \[least, most\]"),
    (["--set", "resources.workers=[1, 2]", "--set", "model.sync_batchnorm=true"], r"",
     r"model\.sync_batchnorm: .* change in number with resources\.workers \[1, 2\]; give a fixed number, or false"),
    (["--set", "resources.workers=2", "--set", "model.sync_batchnorm=true"], r"",
     r"model\.sync_batchnorm: .* resources\.gpus_per_worker is 0; give each worker a GPU, or false"),
    (["--set", "epochs=4", "--set", "optimizer.warmup_epochs=5"], r"",
     r"optimizer\.warmup_epochs: 5 epochs .* more than the run has; give at most epochs, 4"),
    (["--set", "model.architecture=yolov7-w6", "--set", "batch_size=1", "--set", "data.image_size_px=64"], r"",
     r"data\.image_size_px: at 64 px the coarsest map is 1 x 1.* 128 px or more, or change batch_size"),
    (["--set", "resources.workers=8", "--set", "data.image_size_px=64", "--set", "data.multi_scale=0.5"], r"",
     r"data\.multi_scale: at 32 px the coarsest map is 1 x 1.* 64 px or more, .* every step has 16 or more"),
    (["--set", "augment.partner_window=0", "--set", "data.shuffle_shards=2"], r"",
     r"augment\.partner_window: 0 draws .* give 32, or leave data\.shuffle_shards out"),
    (["--set", "data.locality=node", "--set", "data.image_weights=true"], r"",
     r"data\.locality: node deals .* give global, or leave data\.image_weights out"),
    (["--set", "dataset=gs://bucket/x"], r"--set", r"scheme 'gs' is unknown; give a local path or s3://"),
    (["--set", "augment.mosaic=1.5"], r"", r"augment\.mosaic: 1\.5 is not within 0 to 1"),
    (["--set", "seed=-1"], r"--set", r"seed: .*-1.*greater than or equal to 0"),
]


@pytest.mark.parametrize(("words", "where", "message"), KEYS, ids=[words[-1] for words, _, _ in KEYS])
def test_keys_and_values(dataset, capsys, words, where, message):
    error = error_of(capsys, train_job("data", "runs"), "--dry-run", *words)
    assert re.search(where, error) and re.search(message, error, re.S), error


def test_a_last_step_of_one_image_and_one_cell_is_told_before_it_comes(dataset, capsys):
    num_images = ArrowDataset(str(dataset), "train", NodeCache(dataset / "nodes")).split.num_rows
    words = ["--set", "data.image_size_px=32", "--set", f"batch_size={num_images - 1}"]
    error = error_of(capsys, train_job("data", "runs"), "--dry-run", *words)
    assert re.search(r"last step .*data\.image_size_px: at 32 px .* a step of 1 images", error, re.S), error


def test_missing_dataset(dataset, capsys):
    error = error_of(capsys, train_job("nowhere", "runs"), "--dry-run")
    assert re.search(r"nowhere.*(no dataset|holds no).*ingest", error)


def test_missing_split(dataset, capsys):
    job = train_job("data", "runs", data={"image_size_px": 64, "val_split": "test"})
    assert re.search(r"'test'.*train, val", error_of(capsys, job, "--dry-run"))


def test_missing_class(dataset, capsys):
    make_coco(Path("coco"))
    job = {"kind": "ingest", "source": coco_source("coco").model_dump(), "dataset": "new",
           "classes": ["cat", "unicorn"]}
    with pytest.raises(JobError, match="'unicorn' is not in the source; the source has cat, dog"):
        ingest_here(validate(job).source, "new", classes=job["classes"])


def test_classes_of_model_and_dataset_differ(dataset, capsys):
    save_model("other.safetensors", build_model(ARCHITECTURES["yolov7-tiny"].scaled(width=0.25), 2), ["cat", "dog"])
    error = error_of(capsys, {"kind": "evaluate", "model": "./other.safetensors", "dataset": "data"}, "--dry-run")
    assert re.search(r"cat.*dog.*circle|circle.*cat.*dog", error, re.S)


def test_s3_without_credentials(dataset, capsys, s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    error = error_of(capsys, train_job(s3, "runs"))
    assert "credentials" in error and "AWS_ACCESS_KEY_ID" in error
    assert_plan_without(capsys, s3, "S3 credentials are missing")


def test_unreachable_endpoint(dataset, capsys, s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert re.search(r"127\.0\.0\.1:9.*AWS_ENDPOINT_URL", error_of(capsys, train_job(s3, "runs")), re.S)
    assert_plan_without(capsys, s3, "127.0.0.1:9")


def assert_plan_without(capsys, s3: str, why: str) -> None:
    """Cost and demand are told, and why the data are not."""
    Path("job.yaml").write_text(yaml.safe_dump(train_job(s3, "runs", model={"architecture": "yolov7"})))
    assert submit.main(["job.yaml", "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "asks for  1 CPU and 0 GPU" in plan
    assert "model     yolov7 at 64 px: 80 classes, 37.62 M parameters" in plan and "its own cannot be read now" in plan
    [line] = [line for line in plan.splitlines() if line.startswith("  dataset   ")]
    assert line.startswith(f"  dataset   cannot be reached: {s3}: ") and why in line


def test_unreachable_cluster(dataset, capsys):
    error = error_of(capsys, train_job("s3://bucket/x", "s3://bucket/runs"), "--address", "http://127.0.0.1:9")
    assert re.search(r"http://127\.0\.0\.1:9.*(reach|answer|refuse)", error)


def test_more_gpus_than_the_cluster_has():
    job = validate(train_job("data", "runs", resources={"workers": 4, "gpus_per_worker": 1}))
    with pytest.raises(JobError, match="asks for 4 CPU and 4 GPU .*there are 8 CPU and 1 GPU; lower"):
        admission.check(job, {"CPU": 8, "GPU": 1})


def test_corrupt_manifest(dataset, capsys):
    manifest = dataset / "dataset.json"
    manifest.write_text(manifest.read_text()[:-20])
    assert re.search(r"dataset\.json.*ingest", error_of(capsys, train_job("data", "runs"), "--dry-run"), re.S)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_shard(dataset, tmp_path, damage):
    shard = next(dataset.rglob("*.arrow"))
    data = bytearray(shard.read_bytes())
    if damage == "truncated":
        data = data[:-8]
    else:
        data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    split = shard.parent.name
    with pytest.raises(Corrupt, match="truncated|sha256"):
        reader = ArrowDataset(str(dataset), split, NodeCache(tmp_path / "cache"))
        [reader.read(index) for index in range(len(reader))]


def test_checkpoint_of_another_architecture(dataset, capsys):
    run = Path("runs/earlier")
    run.mkdir(parents=True)
    earlier = validate(train_job("data", "runs", model={"architecture": "yolov7"}))
    (run / "spec.json").write_text(earlier.model_dump_json())
    from yolov7_ray.train.trainer import check_run

    with pytest.raises(JobError, match=r"has learnt with model.architecture 'yolov7' \(the job says 'yolov7-tiny'\)"):
        check_run(validate(train_job("data", "runs")), str(run))


def test_zero_images(dataset):
    make_coco(Path("coco"), num_images=0)
    with pytest.raises(JobError, match="no images"):
        ingest_here(coco_source("coco"), "empty")


def test_an_image_and_a_class_without_objects_are_valid(dataset, capsys):
    root = make_coco(Path("coco"), num_images=2)
    for split in ("train", "val"):
        document = json.loads((root / f"{split}.json").read_text())
        first = document["images"][0]["id"]
        write_coco_json(root / f"{split}.json", document["images"],
                        [a for a in document["annotations"] if a["image_id"] == first and a["category_id"] == 3])
    ingest_here(coco_source(root), "sparse")
    assert [len(ArrowDataset("sparse", "train").read(i).labels) for i in range(2)] == [1, 0]
    Path("job.yaml").write_text(yaml.safe_dump(train_job("sparse", "runs", batch_size=2)))
    assert submit.main(["job.yaml", "--dry-run"]) == 0
    assert re.search(r"dog", capsys.readouterr().out), "the class without objects is named"
