"""What a run leaves behind after each epoch, without Ray: page, CSV, TensorBoard events, first batches."""

import csv
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import check_everywhere, chromium
from runs import ALONE, COST, epoch_row, found_in, run_log

from yolov7.images.batch import Batch
from yolov7.images.draw import class_color
from yolov7_ray import storage
from yolov7_ray.errors import StorageError
from yolov7_ray.jobs.job_file import load_job
from yolov7_ray.train import report
from yolov7_ray.train.loop import scores
from yolov7_ray.train.outcome.batches import with_first_drawn
from yolov7_ray.train.outcome.page import code_version
from yolov7_ray.train.outcome.table import run_table
from yolov7_ray.train.outcome.results_csv import COLUMNS, results_csv


def write(log, spec, state, epochs: int, last: bool = False) -> None:
    """One more epoch with an evaluation."""
    epoch = len(state.history) + 1
    share = found_in(log.val_set, epoch, min(0.9, 0.4 + 0.1 * epoch))
    metrics = share.evaluator.compute()
    state.history.append(epoch_row(epoch, scores(metrics, spec)))
    log.write(state, metrics, share, COST, {f"checkpoint-epoch-{done:04d}" for done in range(1, epoch + 1)}, last)


# --- the page ----------------------------------------------------------------------------------------


def test_the_page_is_there_after_the_first_evaluation_and_follows_the_run(shapes_dataset, tmp_path):
    log, spec, state, lines = run_log(shapes_dataset, str(tmp_path), epochs=3)
    page = tmp_path / "run/report/index.html"
    write(log, spec, state, 3)
    first = page.read_text()
    assert "1 of 3" in first and "class='card case'" in first and not list(page.parent.glob("*.png"))
    assert f"{state.history[0]['ap']:.3f}" in first and log.train_set.fingerprint in first and code_version() in first
    state.history.append(epoch_row(2))
    log.write(state, None, None, COST, {"checkpoint-epoch-0001", "checkpoint-epoch-0002"})
    assert page.read_text() == first, "that epoch was not evaluated"
    assert storage.read_json(f"{tmp_path}/run/results.json")["metrics"]["overall"]["ap"] == state.history[0]["ap"]
    write(log, spec, state, 3, last=True)
    assert "3 of 3" in page.read_text() and lines == []
    assert {path.name for path in page.parent.glob("*.png")} == {"ap.png", "losses.png", "pr-curves.png", "confusion-matrix.png"}


def test_images_are_drawn_again_when_that_costs_little(shapes_dataset, tmp_path, monkeypatch):
    log, spec, state, _ = run_log(shapes_dataset, str(tmp_path), epochs=9)
    now, drawn = [0.0], []

    def gallery(*arguments):
        now[0] += 2.0
        drawn.append(len(state.history))
        return real(*arguments)

    real = report.gallery
    monkeypatch.setattr(report, "gallery", gallery)
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    for pause_s in (0, 100, 100, 10):  # the first drawing took 2 s: the next is due 200 s after it began
        now[0] += pause_s
        write(log, spec, state, 9)
    assert drawn == [1, 3]
    assert "of epoch 3" in (tmp_path / "run/report/index.html").read_text(), "it says of which model they are"
    write(log, spec, state, 9, last=True)
    assert drawn == [1, 3, 5]


def test_what_cannot_be_shown_does_not_end_a_training(shapes_dataset, tmp_path, monkeypatch):
    log, spec, state, lines = run_log(shapes_dataset, str(tmp_path))

    def run_page(view):
        raise ZeroDivisionError("of the page")

    monkeypatch.setattr(report, "run_page", run_page)
    write(log, spec, state, 2)
    assert len(lines) == 1 and "training goes on" in lines[0] and "ZeroDivisionError: of the page" in lines[0]
    assert storage.read_json(f"{tmp_path}/run/results.json")["epochs"][0]["epoch"] == 1


def test_the_job_of_a_run_is_a_job_file_to_resume_with(shapes_dataset, tmp_path):
    _, spec, _, _ = run_log(shapes_dataset, str(tmp_path))
    storage.write_json(f"{tmp_path}/run/spec.json", spec.model_dump(mode="json"))
    read = load_job(f"{tmp_path}/run/spec.json", [])
    assert read.model_dump(mode="json", exclude={"name"}) == spec.model_dump(mode="json", exclude={"name"})


# --- tables and events -------------------------------------------------------------------------------


def test_results_csv_has_the_same_columns_in_every_run():
    rows = list(csv.DictReader(io.StringIO(results_csv([epoch_row(1), epoch_row(2, {"ap": 0.25, "ap50": 1 / 3})]))))
    assert list(rows[0]) == list(COLUMNS) and len(set(COLUMNS)) == len(COLUMNS)
    assert (rows[0]["epoch"], rows[0]["ap"], rows[0]["train/box"]) == ("1", "", "1")
    assert (rows[1]["ap"], rows[1]["ap50"], rows[1]["seconds/synchronize"]) == ("0.25", "0.333333", "")
    assert rows[0]["seconds/evaluate"] == "0.75", "its parts together"
    assert [float(row["seconds"]) for row in rows] == [5.875, 11.75], "since the start, without what loaders do meanwhile"


def records(path: Path) -> list:
    """Events of a TensorBoard file, by the format of TFRecord."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = path.read_bytes(), []
    while data:
        length, = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12:12 + length]))
        data = data[16 + length:]
    return found


def test_tensorboard_has_every_scalar_of_every_epoch_the_last_one_too(shapes_dataset, tmp_path):
    log, spec, state, _ = run_log(shapes_dataset, str(tmp_path), epochs=2)
    list(log.first_drawn([[batch_of(2)]]))
    write(log, spec, state, 2)
    write(log, spec, state, 2, last=True)
    events, = (tmp_path / "run/tensorboard").iterdir()
    found = {(event.step, value.tag): value for event in records(events) for value in event.summary.value}
    for row in state.history:
        for key in ("ap", "f1", "train/box", "learning_rate"):
            assert found[row["epoch"], key].simple_value == pytest.approx(row[key], rel=1e-6)
        assert found[row["epoch"], "seconds/step"].simple_value == 4
    jpeg = (tmp_path / "run/report/train-batches.jpg").read_bytes()
    assert found[0, "train-batches"].image.encoded_image_string == jpeg


def test_the_table_at_the_end_of_a_training(shapes_dataset, tmp_path):
    log, spec, state, _ = run_log(shapes_dataset, str(tmp_path), epochs=2)
    write(log, spec, state, 2)
    write(log, spec, state, 2)
    state.history[0] |= {"ap": 0.9, "ap_large": None}
    results = report.summarize(state, spec, log.train_set, log._metrics, {"checkpoint-epoch-0001"}) | COST
    lines = run_table(results)
    first = "\n".join(lines).splitlines()[:4]
    assert first[0] == "best epoch, by ap: 1 of 2" and first[1].startswith("  AP 0.900  AP50 ") and first[1].endswith("large –")
    assert first[2:] == ["after epoch 2:", "  class     objects     AP   AP50  precision  recall"]
    assert lines[-1] == "time: 12 s in 2 epochs: step 68%, fetch 17%, evaluate 13%, save 2%"
    assert {line.split()[0] for line in lines[3:-2]} == {"all", *log.train_set.classes}


def test_the_table_of_a_run_whose_split_holds_no_object(shapes_dataset, tmp_path):
    log, spec, state, _ = run_log(shapes_dataset, str(tmp_path))
    state.history.append(epoch_row(1, {"ap": None, "ap50": None}))
    lines = run_table(report.summarize(state, spec, log.train_set, None, {"checkpoint-epoch-0001"}))
    assert lines == ["time: 6 s in 1 epoch: step 68%, fetch 17%, evaluate 13%, save 2%"]


# --- first batches -----------------------------------------------------------------------------------


def batch_of(num_images: int, grey: int = 90) -> tuple[Batch, int]:
    """Images of 64 px, each with a box of class 1 in its lower right quarter."""
    targets = torch.tensor([[index, 1, .75, .75, .25, .25] for index in range(num_images)])
    return Batch(torch.full((num_images, 3, 64, 64), grey, dtype=torch.uint8), targets, torch.arange(num_images)), num_images


def test_the_first_images_are_drawn_once_with_their_boxes_and_the_steps_stay_as_they_are():
    steps = [[batch_of(6), batch_of(6)], [batch_of(6, 30)], [batch_of(6)]]
    shown: list[np.ndarray] = []
    assert list(with_first_drawn(steps, ["cat", "dog"], shown.append)) == steps
    picture, = shown
    assert picture.shape == (4 * 256, 4 * 256, 3), "sixteen images, enlarged four times"
    tops = [picture[256 * row + 5, 256 * column + 5, 0] for row in range(4) for column in range(4)]
    assert tops == [90] * 12 + [30] * 4
    assert tuple(picture[256 * 2 + 200, 256 + 160]) == class_color(1), "the left side of a box, from 5/8 of the width"


def test_a_small_epoch_is_drawn_at_its_end_and_empty_parts_not_at_all():
    shown: list[np.ndarray] = []
    empty = (batch_of(1)[0], 0)
    list(with_first_drawn([[batch_of(3), empty]], ["cat", "dog"], shown.append))
    assert [picture.shape for picture in shown] == [(512, 512, 3)]
    list(with_first_drawn([[empty]], ["cat", "dog"], shown.append))
    assert len(shown) == 1


def test_a_storage_that_fails_is_told_and_the_run_shows_the_picture_all_the_same(shapes_dataset, tmp_path, monkeypatch):
    log, spec, state, lines = run_log(shapes_dataset, str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", fail)
        list(log.first_drawn([[batch_of(16)]]))
    assert len(lines) == 1 and "training goes on" in lines[0]
    write(log, spec, state, 2)
    assert "alt='first training batches'" in (tmp_path / "run/report/index.html").read_text()


def fail(uri, data):
    raise StorageError(uri, "is not there", "wait")


def test_a_resumed_run_shows_the_batches_it_began_with(shapes_dataset, tmp_path):
    log, spec, state, _ = run_log(shapes_dataset, str(tmp_path))
    list(log.first_drawn([[batch_of(16)]]))
    again = report.RunLog(log.run, spec, log.train_set, log.val_set, ALONE, print)
    write(again, spec, state, 2)
    assert "alt='first training batches'" in (tmp_path / "run/report/index.html").read_text()


# --- in a browser ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_of_a_run_works_from_disk_everywhere_and_its_curves_answer(shapes_dataset, tmp_path):
    log, spec, state, _ = run_log(shapes_dataset, str(tmp_path), epochs=6)
    list(log.first_drawn([[batch_of(16)]]))
    for _ in range(4):
        write(log, spec, state, 6)
    path = tmp_path / "run/report/index.html"
    with chromium() as browser:
        check_everywhere(browser, path, ".case", "run")
        page = browser.new_page()
        page.goto(path.as_uri())
        reading, chart = page.locator(".reading").first, page.locator(".reads svg").first
        assert reading.inner_text().startswith("epoch 4 · AP ")
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.15, box["y"] + box["height"] / 2)
        assert reading.inner_text().startswith(f"epoch 1 · AP {state.history[0]['ap']:.4g} · AP50")
        assert chart.locator(".cursor").get_attribute("d")
        page.mouse.move(0, 0)
        assert reading.inner_text().startswith("epoch 4 ·") and not chart.locator(".cursor").get_attribute("d")
