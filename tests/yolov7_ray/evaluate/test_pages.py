"""What an evaluation's page says: worst images first, thresholds, classes; and that it works in a browser."""

import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from browser import check_everywhere, chromium
from runs import found_in

from yolov7.evaluation.metrics import CocoEvaluator
from yolov7.evaluation.mistakes import JudgedImage, judged_images
from yolov7_ray.data.reading.dataset import ArrowDataset
from yolov7_ray.errors import Corrupt
from yolov7_ray.evaluate.page.charts import Line, lines
from yolov7_ray.evaluate.page.pictures import chosen, gallery, pairs_of
from yolov7_ray.evaluate.rank_share import Share
from yolov7_ray.evaluate.report import evaluation_page
from yolov7_ray.evaluate.summary import summary_table


def image(position: int, truth: list[str], verdicts: list[str], label: int = 0) -> JudgedImage:
    """One whose objects and detections have these verdicts, all of one class."""
    return JudgedImage(position, np.zeros((len(truth), 4)), np.full(len(truth), label), truth,
                       np.tile([0, 0, 1, 1, .5, label], (len(verdicts), 1)), verdicts, [-1] * len(verdicts))


# --- which images ------------------------------------------------------------------------------------


def test_the_worst_images_come_first_and_those_without_a_mistake_never():
    half = image(0, ["found", "missed"], ["right"])
    nothing_found = image(1, ["missed"], [])
    worse_still = image(2, ["missed", "missed"], ["false"])
    judged = [half, nothing_found, worse_still, image(3, ["found"], ["right"]), image(4, [], [])]
    assert [one.position for one in chosen(judged, 1, 10)] == [2, 1, 0]
    assert [one.position for one in chosen(judged, 1, 2)] == [2, 1]


def test_every_class_has_an_image_where_there_is_room():
    frequent = [image(position, ["missed"] * 5, [], label=0) for position in range(9)]
    rare = image(9, ["found", "missed"], ["right"], label=1)
    assert rare in chosen([*frequent, rare], 2, 4) and len(chosen([*frequent, rare], 2, 4)) == 4
    assert [one.position for one in chosen([*frequent, rare], 2, 4)] == [0, 1, 2, 9], "still the worst first"


def test_an_image_belongs_to_cells_of_the_confusion_matrix():
    evaluator = CocoEvaluator(["cat", "dog"])
    evaluator.add(1, (50, 50), [[0, 0, 10, 10], [20, 20, 30, 30]], [0, 1], np.zeros(2), [100.0, 100.0],
                  [[0, 0, 10, 10, .9, 1], [40, 40, 45, 45, .8, 0]])
    judged, = judged_images(evaluator.state(), .25)
    assert pairs_of(judged, background=2) == ["0>1", "1>2", "2>0"], "a cat taken for a dog, a missed dog, a false cat"


def test_images_of_a_share_are_those_of_its_order(shapes_dataset):
    dataset = ArrowDataset(shapes_dataset, "val")
    evaluator, truth = CocoEvaluator(dataset.classes), dataset.truth(4)
    evaluator.add(truth.image_id, truth.size_hw, truth.boxes_xyxy, truth.labels, truth.iscrowd, truth.area, np.zeros((0, 6)))
    found = gallery(dataset, Share(evaluator, [4]), 0.25)
    assert len(found.figures) == 1 and truth.file_name in found.figures[0] and found.num_images == 1
    assert found.counts == Counter(missed=len(truth.labels)) and found.classes == sorted(set(truth.labels.tolist()))
    assert gallery(dataset, found_in(dataset), 0.25).num_images == len(dataset)


def test_an_image_that_cannot_be_read_is_left_out(shapes_dataset, monkeypatch):
    dataset = ArrowDataset(shapes_dataset, "val")

    def read(index, reduce):
        raise Corrupt("x", "y", "z")

    monkeypatch.setattr(dataset, "read", read)
    found = gallery(dataset, found_in(dataset), 0.25)
    assert found.figures == [] and found.counts.total() > 0


# --- what is written ---------------------------------------------------------------------------------


def test_the_table_has_all_classes_the_weakest_first():
    evaluator = CocoEvaluator(["cat", "dog", "a bird with a name that is far too long"])
    boxes = [[0, 0, 10, 10], [20, 0, 60, 40], [0, 50, 10, 60]]
    found = [[0, 0, 10, 10, .9, 0], [0, 50, 10, 60, .8, 0]]
    evaluator.add(1, (99, 99), boxes, [0, 1, 0], np.zeros(3), [100.0, 1600.0, 100.0], np.array(found, float))
    assert summary_table(evaluator.compute().to_dict()) == [
        "  class                     objects     AP   AP50  precision  recall",
        "  all                             3  0.500  0.500          –       –",
        "  dog                             1  0.000  0.000      0.000   0.000",
        "  cat                             2  1.000  1.000      1.000   1.000",
        "  a bird with a name that…        0      –      –          –       –",
        "  AP75 0.500  small 1.000  medium 0.000  large –"]


def test_names_are_text_not_html(shapes_dataset):
    dataset = ArrowDataset(shapes_dataset, "val")
    share = found_in(dataset)
    names = ["<script>alert(1)</script>", "'b'", "</script>", "&"]
    evaluator = CocoEvaluator.merged(names, [share.evaluator.state()])
    found = gallery(SimpleNamespace(classes=names, size_hw=dataset.size_hw, read=dataset.read), share, 0.25)
    text = evaluation_page("runs/<i>", "<b>", "data", evaluator.compute(), names, found)
    assert "<script>alert" not in text and "<i>" not in text.replace("<i ", "") and "<b>&lt;" not in text
    assert text.count("</script>") == 2, "that of the data and that of the code"


@pytest.mark.parametrize("num_classes", [1, 2, 45])
def test_a_page_without_objects_or_detections_is_whole(num_classes):
    names = [f"class {number}" for number in range(num_classes)]
    evaluator = CocoEvaluator(names)
    none = np.zeros(0)
    evaluator.add(1, (64, 64), np.zeros((0, 4)), none, none, none, np.zeros((0, 6)))
    text = evaluation_page("runs/a", "model", "data", evaluator.compute(), names, None)
    assert "AP" in text and "id='operating'" not in text and ("30 classes that are confused most" in text) == (num_classes > 30)


def test_lines_are_thinned_out_to_what_a_screen_shows_and_the_last_value_stays():
    text = lines([Line("a", [(epoch, epoch / 5000) for epoch in range(1, 5001)])], "AP")
    assert len(text) < 60_000 and '[5,14,23,' in text.replace("&quot;", '"') and "5000]" in text
    assert lines([Line("a", [])], "AP") == ""


# --- in a browser ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(shapes_dataset, tmp_path_factory):
    dataset = ArrowDataset(shapes_dataset, "val")
    share = found_in(dataset)
    metrics = share.evaluator.compute()
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(evaluation_page("runs/evaluation", "shapes@latest", "datasets/shapes · val", metrics, list(dataset.classes),
                                    gallery(dataset, share, metrics.operating.best_confidence)))
    return path


@pytest.mark.slow
def test_the_page_works_from_disk_everywhere(page_file):
    with chromium() as browser:
        check_everywhere(browser, page_file, ".case", "evaluation")


@pytest.mark.slow
def test_slider_table_and_filters_answer(page_file, shapes_dataset):
    dataset = ArrowDataset(shapes_dataset, "val")
    metrics = found_in(dataset).evaluator.compute()
    with chromium() as browser:
        page = browser.new_page()
        page.goto(page_file.as_uri())
        said = page.locator("#operating-values")
        best = metrics.operating.at_best()
        assert f"F1 {best['f1']:.3f} · best mean F1" in said.inner_text()
        page.locator("#confidence").fill("90")
        recall = np.nanmean(metrics.operating.recall[:, 90])
        assert f"recall {recall:.3f}" in said.inner_text() and "best" not in said.inner_text()
        page.locator("#curve-class").select_option(label=dataset.classes[1])
        assert f"recall {metrics.operating.recall[1, 90]:.3f}" in said.inner_text()
        page.locator("#to-best").click()
        assert page.locator("#confidence-value").inner_text() == f"{best['confidence']:.2f}"

        page.locator(".classes th button", has_text="objects").click()
        counts = [int(text) for text in page.locator(".classes tbody tr td:nth-child(2)").all_inner_texts()]
        assert counts == sorted(counts, reverse=True)

        whole = page.locator(".case:visible").count()
        page.locator("#case-kind").select_option("missed")
        captions = page.locator(".case:visible figcaption").all_inner_texts()
        assert 0 < len(captions) <= whole and all("missed" in caption for caption in captions)
        page.locator("#case-all").click()
        assert page.locator(".case:visible").count() == whole
        cell = page.locator("[data-pair$='>4']").first  # missed: found as background
        cell.dispatch_event("click")
        pair = cell.get_attribute("data-pair")
        shown = page.locator(".case:visible")
        assert all(pair in shown.nth(index).get_attribute("data-pairs").split(" ") for index in range(shown.count()))
        assert re.search(r"\d+ shown · \d+ × .* found as background", page.locator("#case-count").inner_text())
