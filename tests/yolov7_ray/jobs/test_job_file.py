"""Job files: parsing, and the message of every validation error."""

import json

import jsonschema
import pytest
import yaml

from yolov7_ray.jobs import document, paths
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import json_schema, load_job, run_name, to_json, validate
from yolov7_ray.jobs.kinds import KINDS, kind_named
from yolov7_ray.train.spec import TrainSpec
from yolov7_ray.jobs.starter import new_job

TRAIN = "kind: train\ndataset: d\n"
TUNE = "kind: tune\ntrain: {kind: train, dataset: d}\nsearch: {optimizer.learning_rate: {loguniform: [1e-3, 1e-1]}}\n"
PIPELINE = """kind: pipeline
steps:
  ingest: {kind: ingest, dataset: d}
  train: {kind: train, dataset: "${ingest.dataset}"}
"""

INVALID_JOBS = [
    ("unknown key", TRAIN + "epoch: 3\n", [], "job: epoch: is an unknown key; did you mean 'epochs'?"),
    ("unknown key far from any", TRAIN + "model: {colour: red}\n", [],
     "job: model.colour: is an unknown key; keys here are architecture, depth, width"),
    ("unknown key of a section from yolov7", TRAIN + "optimizer: {learning_rat: 1}\n", [],
     "job: optimizer.learning_rat: is an unknown key; did you mean 'learning_rate'?"),
    ("wrong type", TRAIN + "batch_size: many\n", [],
     "job: batch_size: 'many' does not fit; it must be a valid integer"),
    ("out of range", TRAIN + "epochs: 0\n", [], "job: epochs: 0 does not fit; it must be greater than or equal to 1"),
    ("a value where a section belongs", TRAIN + "data: 3\n", [], "job: data: 3 does not fit; give a section of keys: "),
    ("one of a few", TRAIN + "recipe: p7\n", [],
     "job: recipe: 'p7' does not fit; it must be 'auto', 'small', 'tiny', 'p5', 'p6' or 'custom'"),
    ("unknown architecture", TRAIN + "model: {architecture: yolov7z}\n", [],
     "job: model.architecture: 'yolov7z' is unknown; choose yolov7-tiny, "),
    ("missing key", "kind: train\nepochs: 1\n", [],
     "job: dataset: is missing; give it: Arrow dataset written by an ingest job"),
    ("missing kind", "dataset: d\nepochs: 1\n", [], "job: kind: is missing; choose "),
    ("unknown kind", "kind: trian\ndataset: d\n", [], "job: kind: 'trian' is unknown; choose ingest, doctor, train, "),
    ("unknown format", "kind: ingest\ndataset: d\nsource: {format: pascal}\n", [],
     "job: source.format: 'pascal' is unknown; choose auto, background, coco, csv, cvat, datumaro, "
     "huggingface, json, kitti, labelme, labelstudio, openimages, parquet, yolo, via, voc, webdataset, shapes"),
    ("bad name", TRAIN + "name: My Job\n", [], "job: name: 'My Job' does not fit; use small letters"),
    ("unknown scheme", "kind: train\ndataset: gs://x\n", [],
     "job: dataset: scheme 'gs' is unknown; give a local path or s3://bucket/prefix"),
    ("validator of yolov7", TRAIN + "optimizer: {learning_rate: -1}\n", [],
     "job: optimizer.learning_rate: -1.0 is not positive"),
    ("size no multiple of the stride", TRAIN + "data: {image_size_px: 650}\n", [],
     "job: data.image_size_px: 650 is not a multiple of the model's largest stride 32; choose 640 or 672"),
    ("no module to freeze", TRAIN + "model: {freeze: [backbon]}\n", [],
     "job: model.freeze: 'backbon' is no module of this architecture; choose among backbone, neck, head"),
    ("everything frozen", TRAIN + "model: {freeze: [backbone, neck, head]}\n", [],
     "job: model.freeze: backbone, neck, head leave nothing to train; freeze less"),
    ("no anchors", TRAIN + "model: {anchors: mine}\n", [],
     "job: model.anchors: 'mine' is no set of anchors; give default, auto, or for each level, fine to coarse, "
     "a list of"),
    ("anchors of another number of levels",
     TRAIN + "model: {anchors: [[[8, 9], [10, 20]], [[30, 30], [40, 50]]]}\n", [],
     "job: model.anchors: (((8.0, 9.0), (10.0, 20.0)), ((30.0, 30.0), (40.0, 50.0))) do not fit yolov7; give 3 levels"),
    ("an anchor without width", TRAIN + "model: {anchors: [[[0, 9]], [[10, 20]], [[30, 30]]]}\n", [],
     "job: model.anchors: (((0.0, 9.0),), ((10.0, 20.0),), ((30.0, 30.0),)) do not fit yolov7; give 3 levels"),
    ("too many scales", TRAIN + "data: {multi_scale: 1.5}\n", [],
     "job: data.multi_scale: 1.5 does not fit; it must be less"),
    ("fewer images than workers", TRAIN + "batch_size: 2\nresources: {workers: 4}\n", [],
     "job: batch_size: 2 images cannot be shared by 4 workers; give at least one each"),
    ("not YAML", "kind: train\n  dataset: [\n", [], "job: line 2, column 10: "),
    ("a key twice", "kind: train\ndataset: a\ndataset: b\n", [], "job: line 3, column 1: key 'dataset' is given twice"),
    ("no mapping", "- kind\n- train\n", [], "job: holds list"),
    ("unknown --set key", TRAIN, ["epocs=3"], "--set: epocs: is an unknown key; did you mean 'epochs'?"),
    ("unknown --set section", TRAIN, ["modl.depth=1"], "--set: modl: is an unknown key; did you mean 'model'?"),
    ("--set without value", TRAIN, ["epochs"],
     "--set epochs: has no `key=value`; give e.g. --set data.image_size_px=320"),
    ("--set below a value", TRAIN + "epochs: 3\n", ["epochs.first=1"],
     "--set epochs.first=1: epochs is 3, which holds no keys"),
    ("--set of a wrong value", TRAIN, ["epochs=soon"],
     "--set: epochs: 'soon' does not fit; it must be a valid integer"),
    ("no distribution", TUNE, ["search.optimizer.momentum={unifrm: [0, 1]}"],
     "--set: search.optimizer.momentum: {'unifrm': [0, 1]} is no distribution; give one of {uniform: [low, high]}"),
    ("half a distribution", TUNE, ["search.optimizer.momentum={uniform: [0.5]}"],
     "--set: search.optimizer.momentum.uniform.1: is missing"),
    ("unknown searched key", TUNE, ["search.optimizer.lr={uniform: [0, 1]}"],
     "--set: search.optimizer.lr: is no key of the train job"),
    ("searched value that does not fit", TUNE, ["search.data.image_size_px={choice: [320, 333]}"],
     "--set: search.data.image_size_px: 333 is refused by the train job"),
    ("mistake in a step", PIPELINE, ["steps.train.model.depth=9"], "--set: steps.train.model.depth: 9 does not fit"),
    ("reference to no step", PIPELINE, ["steps.train.dataset=${ingst.dataset}"],
     "--set: steps.train: ${ingst.dataset} names no earlier step; earlier steps are ingest"),
    ("reference to no output", PIPELINE, ["steps.train.dataset=${ingest.data}"],
     "--set: steps.train: step 'ingest' (ingest) has no output 'data'; it has dataset, fingerprint"),
]


@pytest.mark.parametrize(("text", "overrides", "message"), [row[1:] for row in INVALID_JOBS],
                         ids=[row[0] for row in INVALID_JOBS])
def test_validation_error_is_reported(text, overrides, message):
    with pytest.raises(JobError) as error:
        load_job(text, overrides)
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) == 1


def test_all_validation_errors_are_reported_at_once(tmp_path):
    path = tmp_path / "train-x.yaml"
    path.write_text(TRAIN + "epoch: 3\nmodel: {architecture: yolov7z}\nbatch_size: many\n")
    with pytest.raises(JobError) as error:
        load_job(path)
    lines = str(error.value).splitlines()
    assert len(lines) == 3 and all(line.startswith(f"{path}: ") for line in lines)


def test_missing_file_lists_its_neighbours(tmp_path):
    (tmp_path / "train-a.yaml").write_text(TRAIN)
    with pytest.raises(JobError, match=r"no such job file; .* holds train-a\.yaml"):
        load_job(tmp_path / "train-b.yaml")


@pytest.mark.parametrize("kind", KINDS)
def test_starter_file_is_valid_and_complete(kind):
    text = new_job(kind)
    job = load_job(text)
    assert job.kind == kind
    uncommented = {line.lstrip("# ").partition(":")[0] for line in text.splitlines()}
    assert set(kind_named(kind).spec.model_fields) <= uncommented, "every key is shown"


def test_starter_file_explains_keys_of_yolov7():
    lines = new_job("train").splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() == "# learning_rate: 0.004")
    assert lines[at - 1].strip().startswith("# Peak learning rate")


def test_unknown_starter_kind():
    with pytest.raises(JobError, match="'trane' is unknown; choose ingest, doctor, train"):
        new_job("trane")


@pytest.mark.parametrize("kind", KINDS)
def test_resolved_job_reads_back_the_same(kind):
    job = load_job(new_job(kind))
    assert load_job(to_json(job)) == job


@pytest.mark.parametrize("kind", KINDS)
def test_schema_accepts_what_is_valid_and_refuses_an_unknown_key(kind):
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    values = document.mapping(new_job(kind), kind)
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {"colour": "red"}, schema)


SEARCH = {"kind": "tune", "train": "jobs/train-yolov7-coco.yaml", "search": "recipe"}


@pytest.mark.parametrize(("values", "accepted"), [
    (SEARCH, True), (SEARCH | {"search": "everything"}, False), (SEARCH | {"search": {}}, False), (SEARCH | {"train": 3}, False),
    (SEARCH | {"train": {"kind": "train", "dataset": "d"}}, True), (SEARCH | {"train": {"kind": "train"}}, False),
    (SEARCH | {"search": {"batch_size": {"integer": [1, 2]}}}, True), (SEARCH | {"search": {"batch_size": 2}}, False),
    ({"kind": "train", "job": "x.yaml", "epochs": 9}, True), ({"kind": "train", "epochs": 9}, False),
    ({"kind": "train", "job": "x.yaml", "epoch": 9}, False),
    ({"kind": "pipeline", "steps": {"s": SEARCH, "t": {"kind": "train", "job": "${s.best_job}"}}}, True)])
def test_schema_knows_words_and_paths_that_stand_for_sections(values, accepted):
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(values) == accepted


def test_a_mistake_in_a_section_that_a_word_could_replace_is_still_named():
    with pytest.raises(JobError, match="job: train.epoch: is an unknown key; did you mean 'epochs'?"):
        validate(SEARCH | {"train": {"kind": "train", "dataset": "d", "epoch": 9}})
    with pytest.raises(JobError, match="job: train.dataset: is missing; give it: Arrow dataset written by an ingest job"):
        validate(SEARCH | {"train": {"kind": "train"}})


def test_plain_values_are_read_as_in_yaml_1_2():
    values = document.parse("{a: 1e-3, b: no, c: 1:30, d: 010, e: true, f: 2024-01-01, g: 1.5, h: -3, i: null}", "x")
    assert values == {"a": 1e-3, "b": "no", "c": "1:30", "d": 10.0, "e": True, "f": "2024-01-01", "g": 1.5, "h": -3,
                      "i": None}


@pytest.mark.parametrize(("override", "path", "value"), [
    ("epochs=5", ("epochs",), 5),
    ("data.image_size_px=320", ("data", "image_size_px"), 320),
    ("classes=[a, b]", ("classes",), ["a", "b"]),
    ("search.loss.box_gain={uniform: [0, 1]}", ("search", "loss.box_gain"), {"uniform": [0, 1]}),
    ("search.optimizer.momentum.uniform=[0, 1]", ("search", "optimizer.momentum", "uniform"), [0, 1]),
    ("registry=", ("registry",), None),
    ("model=${train.run}", ("model",), "${train.run}"),
    ("note=a=b", ("note",), "a=b"),
])
def test_override_sets_one_place(override, path, value):
    values = {"data": {"loader_processes": 1}, "search": {"optimizer.momentum": {"uniform": [0.8, 0.9]}}}
    assert document.assign(values, override) == path
    for key in path:
        values = values[key]
    assert values == value


ALIASES = """kind: pipeline
steps:
  one: &one {kind: train, dataset: d, optimizer: {momentum: 0.9}}
  two: *one
  three: {<<: *one, epochs: 4}
"""


@pytest.mark.parametrize(("step", "expected"), [("one", [0.5, 0.9, 0.9]), ("two", [0.9, 0.5, 0.9]),
                                                ("three", [0.9, 0.9, 0.5])])
def test_override_of_a_section_that_others_share_by_alias_sets_one_place(step, expected):
    job = load_job(ALIASES, [f"steps.{step}.optimizer.momentum=0.5"])
    assert [part.optimizer.momentum for part in job.steps.values()] == expected


NUMBERS = ("epochs", "seed", "batch_size", "resources.workers", "optimizer.learning_rate", "loss.box_gain",
           "augment.mosaic", "ema.decay", "model.depth", "data.cache_gb", "checkpoint.every_minutes")


@pytest.mark.parametrize("key", NUMBERS)
def test_true_is_no_number(key):
    with pytest.raises(JobError, match=rf"^--set: {key}: '?[Tt]rue'? (does not fit|is no number)"):
        load_job(TRAIN, [f"{key}=true"])


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999"])
@pytest.mark.parametrize("key", NUMBERS[4:])
def test_what_is_not_finite_is_refused_by_place(key, value):
    with pytest.raises(JobError, match=rf"^--set: {key}: -?(nan|inf) does not fit; it must be a finite number"):
        load_job(TRAIN, [f"{key}={value}"])


def test_every_number_of_every_kind_refuses_truth_values_and_what_is_not_finite():
    """By the schemas themselves: no number without a check before it, none that admits infinity."""

    def numbers(schema, checked=False):
        if isinstance(schema, dict):
            if schema.get("type") in ("int", "float"):
                yield schema, checked
            for value in schema.values():
                yield from numbers(value, schema.get("type") == "function-before")
        elif isinstance(schema, list | tuple):
            for item in schema:
                yield from numbers(item)

    for name in KINDS:
        found = list(numbers(kind_named(name).spec.__pydantic_core_schema__))
        assert all(checked for _, checked in found), name


def test_a_seed_is_one_that_every_library_takes():
    assert load_job(TRAIN, ["seed=4294967295"]).seed == 2**32 - 1
    with pytest.raises(JobError, match="--set: seed: 4294967296 does not fit; it must be less than 4294967296"):
        load_job(TRAIN, ["seed=4294967296"])


@pytest.mark.parametrize("text", ["on", "010", "08", "1e3", "null", "~", "true", "1:30", "0x1f", "2024-01-01", "é", "", "<<"])
def test_text_that_looks_like_something_else_is_written_so_that_it_is_read_back(text):
    assert document.parse(document.dump({"names": [text]}), "x") == {"names": [text]}
    assert yaml.safe_load(document.dump({"names": [text]})) == {"names": [text]}


def test_a_number_among_class_names_is_named_with_the_remedy():
    with pytest.raises(JobError, match=r"classes.1: 10.0 does not fit; it must be a valid string: put it in quotes"):
        load_job("kind: ingest\ndataset: d\nclasses: [on, 010]\n")


def test_overrides_win_over_file_and_recipe():
    job = load_job(TRAIN + "recipe: tiny\nloss: {box_gain: 0.2}\n", ["loss.objectness_gain=0.4"])
    assert isinstance(job, TrainSpec)
    assert (job.loss.box_gain, job.loss.objectness_gain, job.loss.classification_gain) == (0.2, 0.4, 0.5)


def test_a_list_of_anchors_and_every_named_architecture_are_accepted():
    job = load_job(TRAIN, ["model.architecture=yolov3", "model.anchors=[[[8, 9.5]], [[10, 20]], [[30, 30]]]"])
    assert job.build_architecture().anchors_px == (((8.0, 9.5),), ((10.0, 20.0),), ((30.0, 30.0),))
    assert load_job(to_json(job)) == job


def test_runs_have_unique_names_after_their_file(tmp_path):
    path = tmp_path / "Train BCCD (fast).yaml"
    path.write_text(TRAIN)
    job = load_job(path)
    names = {run_name(job) for _ in range(20)}
    assert len(names) == 20 and all(name.startswith("train-bccd-fast-20") for name in names)


# --- paths ------------------------------------------------------------------------------------------


def test_local_paths_become_absolute_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = paths.absolute(load_job("""kind: pipeline
steps:
  ingest:
    kind: ingest
    source: {format: coco, uri: raw, splits: {train: {images: i, annotations: a}}}
    dataset: s3://b/d
  publish: {kind: publish, model: runs/r, registry: /abs/registry, publish_as: m}
  serve: {kind: serve, registry: reg, models: {m: {model: "${publish.model}"}, n: {model: n@latest}}}
"""))
    ingest, publish, serve = job.steps.values()
    assert (ingest.source.uri, ingest.dataset) == (str(tmp_path / "raw"), "s3://b/d")
    assert ingest.source.splits["train"].images == "i", "relative to the source, not to us"
    assert (publish.model, publish.registry) == (str(tmp_path / "runs/r"), "/abs/registry")
    assert serve.registry == str(tmp_path / "reg")
    assert [model.model for model in serve.models.values()] == ["${publish.model}", "n@latest"]


def test_cluster_jobs_need_paths_shared_by_all_nodes():
    with pytest.raises(JobError) as error:
        paths.require_shared(load_job(TRAIN), "x.yaml")
    assert str(error.value).splitlines()[0] == "x.yaml: dataset: 'd' is relative to this machine's working directory"
    assert "give s3://bucket/prefix, or an absolute path" in str(error.value)
    paths.require_shared(load_job("kind: train\ndataset: s3://b/d\nstorage: /nfs/runs\n"), "x.yaml")


def test_tune_asks_for_no_storage_of_its_trials():
    paths.require_shared(load_job(TUNE, ["train.dataset=s3://b/d", "storage=s3://b/runs"]), "x.yaml")


def test_schema_is_json():
    assert json.loads(json.dumps(json_schema()))["title"] == "yolov7-ray job file"
