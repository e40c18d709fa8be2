"""Runs side by side: what the table and the page say, and which runs are refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import check_everywhere, chromium
from runs import COST, epoch_row, found_in, run_log
from training_jobs import train_job

import submit
from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.evaluate.compare.comparison import of_jobs, read_all, warnings
from yolov7_ray.evaluate.compare.page import comparison_page
from yolov7_ray.evaluate.compare.report import compare
from yolov7_ray.evaluate.page.charts import Line, lines
from yolov7_ray.jobs.job_file import validate


def of_class(ap: float | None, num_truth: int) -> dict:
    return {"ap": ap, "ap50": ap, "precision": .5, "recall": .5, "f1": .5, "confidence": .3, "num_truth": num_truth}


def metrics(cat: float | None, dog: float | None) -> dict:
    return {"overall": {"ap": .4, "ap50": .7, "ap75": .35, "ap_small": None, "ap_medium": .3, "ap_large": .5, "num_images": 7,
                        "num_objects": 12}, "per_class": {"cat": of_class(cat, 8), "dog": of_class(dog, 4)}}


def trained(directory: Path, aps: list[float | None], speeds: list[float], cat: float = .3, dog: float = .5, saved: bool = True,
            fingerprint: str = "a" * 64, **changes) -> str:
    """A run whose epochs have these AP (None: not evaluated) and images per second."""
    spec = validate(train_job("datasets/pets", "runs", epochs=4) | changes).model_dump(mode="json")
    rows = [epoch_row(epoch, {"images_per_s": speed} | ({} if ap is None else {
        "ap": ap, "ap50": ap + .25, "ap75": ap - .125, "ap_small": None, "ap_medium": ap, "ap_large": ap}))
        for epoch, (ap, speed) in enumerate(zip(aps, speeds), 1)]
    best = max((row for row in rows if "ap" in row), key=lambda row: row["ap"], default=None) if saved else None
    results = {"best": best or {}, "architecture": "yolov7-tiny", "classes": ["cat", "dog"], "dataset": "datasets/pets",
               "dataset_fingerprint": fingerprint, "epochs": rows, "metrics": metrics(cat, dog), "spec": spec,
               "parameters": 384_234, "gflops": 0.5}
    return written(directory, results)


def evaluated(directory: Path, split: str = "val", **more) -> str:
    spec = validate({"kind": "evaluate", "model": "runs/a", "dataset": "datasets/pets", "split": split}).model_dump(mode="json")
    return written(directory, {"model": "runs/a", "dataset": "datasets/pets", "split": split, "metrics": metrics(.25, None),
                               "spec": spec} | more)


def written(directory: Path, results: object) -> str:
    directory.mkdir(parents=True)
    (directory / "results.json").write_text(json.dumps(results))
    return str(directory)


# --- the table ---------------------------------------------------------------------------------------


def test_two_trainings_in_a_table(tmp_path):
    one = trained(tmp_path / "one", [.25, None, .5], [10, 40, 30])
    two = trained(tmp_path / "two", [.625, .5], [20, 30], cat=.425, dog=.5, batch_size=4)
    assert compare([one, two]) == [
        f"A  {one}: yolov7-tiny on datasets/pets, split val; best epoch 3 by ap, 3 of 4 epochs",
        f"B  {two}: yolov7-tiny on datasets/pets, split val; best epoch 1 by ap, 2 of 4 epochs",
        "                   A             B",
        "  AP           0.500  0.625 +0.125",
        "  AP50         0.750  0.875 +0.125",
        "  AP75         0.375  0.500 +0.125",
        "  AP small         –             –",
        "  AP medium    0.500  0.625 +0.125",
        "  AP large     0.500  0.625 +0.125",
        "  parameters    384k          384k",
        "  GFLOPs         0.5           0.5",
        "  epochs      3 of 4        2 of 4",
        "  images/s        30            25",
        "AP by class, of the last evaluation: A epoch 3, B epoch 2",
        "  class  objects      A             B",
        "  cat          8  0.300  0.425 +0.125",
        "  dog          4  0.500  0.500 +0.000",
        "what differs of the jobs",
        "  key         A  B",
        "  batch_size  8  4"]


def test_an_evaluation_beside_a_training(tmp_path):
    training = trained(tmp_path / "run", [.5], [10])
    said = compare([training, evaluated(tmp_path / "test", "test")])
    assert said[1].endswith("/test: evaluation of runs/a on datasets/pets, split test")
    assert said[2] == "warning: the splits differ, so the figures are of different images: A val, B test"
    assert said[4].split() == ["AP", "0.500", "0.400", "-0.100"]
    assert "  images/s        10             –" in said and "  epochs      1 of 4             –" in said
    assert said[-5] == "AP by class, of the last evaluation: A epoch 1, B test"
    assert said[-2:] == ["  dog          4  0.500             –",
                         "jobs of different kinds are not compared key by key; those of one kind do not differ"]


def test_of_many_classes_those_are_shown_that_differ_most(tmp_path):
    def run(name: str, step: float) -> str:
        per_class = {f"class {index}": of_class(step * index, 1) for index in range(25)}
        return evaluated(tmp_path / name, metrics=metrics(.1, .1) | {"per_class": per_class})

    said = compare([run("one", 0.0), run("two", 0.03125)])
    first = next(index for index, line in enumerate(said) if line.startswith("  class  ")) + 1
    assert said[first].split() == ["class", "24", "1", "0.000", "0.750", "+0.750"]
    assert said[first + 19].split()[:2] == ["class", "5"] and said[first + 20] == "  and 5 classes that differ less"


def test_a_run_that_goes_on_has_a_best_epoch_before_it_is_saved(tmp_path):
    run, _ = read_all([trained(tmp_path / "one", [.25, .5, .375], [1, 1, 1], saved=False), trained(tmp_path / "two", [.5], [1])])
    assert run.best["epoch"] == 2 and run.last_evaluated == 3


def test_a_resumed_run_without_figures_of_classes_is_said_to_keep_none(tmp_path):
    one, two = trained(tmp_path / "one", [.5], [1]), trained(tmp_path / "two", [.5], [1])
    results = Path(two, "results.json")
    results.write_text(json.dumps(json.loads(results.read_text()) | {"metrics": None}))
    said = compare([one, two])
    assert "AP by class, of the last evaluation: A epoch 1, B not kept" in said
    assert "  cat          8  0.300  –" in said


def test_jobs_of_one_kind_compare_key_by_key(tmp_path):
    runs = read_all([trained(tmp_path / "a", [.5], [1], seed=1), evaluated(tmp_path / "b"), trained(tmp_path / "c", [.5], [1], seed=2),
                     evaluated(tmp_path / "d", "test")])
    assert of_jobs(runs) == [("seed", [1, None, 2, None]), ("split", [None, "val", None, "test"])]


# --- warnings ----------------------------------------------------------------------------------------


def test_a_dataset_that_has_changed_is_warned_of(tmp_path):
    runs = read_all([trained(tmp_path / "a", [.5], [1]), trained(tmp_path / "b", [.5], [1], fingerprint="b" * 64)])
    assert warnings(runs) == ["the datasets differ, so the figures are of different images: "
                              "A datasets/pets (aaaaaaaaaaaa), B datasets/pets (bbbbbbbbbbbb)"]


def test_the_same_content_elsewhere_is_no_difference(tmp_path):
    moved = evaluated(tmp_path / "b", dataset="s3://bucket/pets", dataset_fingerprint="a" * 64)
    assert warnings(read_all([trained(tmp_path / "a", [.5], [1]), moved])) == []
    unknown = evaluated(tmp_path / "c", dataset="s3://bucket/pets")
    assert warnings(read_all([moved, unknown])) == []
    [warning] = warnings(read_all([trained(tmp_path / "d", [.5], [1]), unknown]))
    assert warning.endswith("A datasets/pets (aaaaaaaaaaaa), B s3://bucket/pets (fingerprint not kept)")


def test_other_classes_are_named(tmp_path):
    others = evaluated(tmp_path / "b", metrics=metrics(.1, .1) | {"per_class": {name: of_class(.1, 1) for name in
                                                                                ("cat", *"abcdefg")}})
    assert warnings(read_all([trained(tmp_path / "a", [.5], [1]), others])) == [
        "the classes differ; those that not all know: A dog; B a, b, c, d, e and 2 more"]


# --- refused -----------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path, capsys):
    run, nothing, empty = trained(tmp_path / "run", [.5], [1]), str(tmp_path / "nothing"), tmp_path / "empty"
    empty.mkdir()
    (empty / "spec.json").write_text("{}")
    cases = [([run], "compare: 1 run given; give 2 to 8"), ([run] * 9, "compare: 9 runs given; give 2 to 8"),
             ([run, nothing], f"{nothing}: there is no run; give the directories of runs, e.g. runs/NAME"),
             ([run, str(empty)], "has no results.json: no epoch has ended, or it is no run of a train or evaluate job"),
             ([trained(tmp_path / "early", [None, None], [1, 1]), run], "has no evaluated epoch yet, 2 ended"),
             ([run, written(tmp_path / "coco", [])], "its results.json is not that of a train or evaluate job")]
    for runs, message in cases:
        with pytest.raises(JobError, match=re.escape(message)):
            compare(runs)
    assert submit.main(["compare", run, nothing]) == 2
    assert capsys.readouterr().err == f"error: {nothing}: there is no run; give the directories of runs, e.g. runs/NAME\n"


def test_neither_ray_nor_torch_is_needed(tmp_path):
    runs = [trained(tmp_path / "a", [.5], [1]), evaluated(tmp_path / "b")]
    program = (f"import sys, submit; assert submit.main(['compare', *{runs}, '--output', {str(tmp_path / 'out')!r}]) == 0\n"
               "print(sorted({'torch', 'ray', 'pyarrow', 'boto3', 'cv2'} & set(sys.modules)))")
    root = Path(submit.__file__).parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.splitlines()[-2:] == [f"page: file://{tmp_path}/out/comparison.html", "[]"], done.stderr


def test_runs_and_page_lie_where_one_says(place, tmp_path):
    for name in ("a", "b"):
        storage.upload(Path(trained(tmp_path / name, [.5], [1]), "results.json"), f"{place}/{name}/results.json")
    said = compare([f"{place}/a", f"{place}/b/"], f"{place}/out")
    assert said[-1].startswith("page: ") and said[-1].endswith(f"{place.removeprefix('file://')}/out/comparison.html")
    assert storage.read_bytes(f"{place}/out/comparison.html").startswith(b"<!doctype html>")
    assert len(storage.list_files(place)) == 3, "of the runs nothing is changed"


# --- the page ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_runs(shapes_dataset, tmp_path_factory) -> list[str]:
    """Two runs as a training leaves them behind, without one, and an evaluation."""
    from yolov7_ray.train.loop import scores

    place = tmp_path_factory.mktemp("runs")
    for name, skill in (("base", .5), ("better", .8)):
        log, spec, state, _ = run_log(shapes_dataset, str(place), name, epochs=3)
        for epoch in (1, 2, 3):
            share = found_in(log.val_set, epoch, skill)
            found = share.evaluator.compute()
            state.history.append(epoch_row(epoch, scores(found, spec)))
            log.write(state, found, share, COST, {"checkpoint-epoch-0003"})
    evaluation = evaluated(place / "evaluation", metrics=found.to_dict(), dataset=shapes_dataset,
                           dataset_fingerprint=log.train_set.fingerprint)
    return [evaluation, str(place / "base"), str(place / "better")]


def test_runs_that_a_training_left_behind_compare(real_runs):
    said, (_, base, better) = compare(real_runs), read_all(real_runs)
    assert not any(line.startswith("warning") for line in said)
    change = better.results["epochs"][2]["ap"] - base.results["epochs"][2]["ap"]
    assert change > 0 and base.best["epoch"] == 3, "the one epoch that is saved"
    text = comparison_page([base, better])
    assert f"{better.best['ap']:.3f} <span class=better>{change:+.3f}</span>" in text and "id=warnings" not in text
    assert text.count("<figure class=card>") == 7 and "Speed" in text


def test_a_run_keeps_its_colour_in_every_chart():
    chart = lines([Line("A", []), Line("B", [(1, .5)])], "AP")
    assert "<i class='s1'></i>B" in chart and "class='line l1'" in chart and "l0" not in chart


def test_names_on_the_page_are_text_not_html(tmp_path):
    strange = "<script>alert(1)</script>"
    one = evaluated(tmp_path / "a", dataset=strange, metrics=metrics(.1, .1) | {"per_class": {strange: of_class(.1, 1)}})
    text = comparison_page(read_all([one, evaluated(tmp_path / "<i>b")]))
    assert "<script>alert" not in text and "<i>b" not in text and text.count("</script>") == 1


@pytest.mark.slow
def test_the_page_works_from_disk_everywhere(real_runs, tmp_path):
    other = trained(tmp_path / "a-run-of-another-dataset-with-a-long-name", [.25, .5], [30, 40], nominal_batch_size=64, seed=3)
    compare([*real_runs, other], str(tmp_path))
    with chromium() as browser:
        check_everywhere(browser, tmp_path / "comparison.html", ".reading", "comparison")
        page = browser.new_page()
        page.goto((tmp_path / "comparison.html").as_uri())
        page.locator(".classes th button", has_text="B − A").click()
        changes = page.locator(".classes tbody tr td:nth-child(7)").all_inner_texts()
        assert changes[:4] == sorted(changes[:4], key=float, reverse=True) and changes[4:] == ["–", "–"]
