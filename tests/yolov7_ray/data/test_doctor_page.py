"""The doctor's page: what a tiny dataset looks like, by hand; and in a browser, without an error or a request."""

import json
import shutil
from collections import Counter
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
from conftest import jpeg
from yolov7_ray.data.doctor.examination import Examination, common_classes
from yolov7_ray.data.doctor.object_checks import Statistics, objects_of
from yolov7_ray.data.doctor.page.charts import binned, short
from yolov7_ray.data.doctor.page.document import page
from yolov7_ray.data.doctor.page.pictures import Pictures
from yolov7_ray.data.doctor.page.portrait import NUM_SHOWN, Portrait
from yolov7_ray.data.ingest.losses import Loss
from yolov7_ray.data.manifest import ARROW_SCHEMA, Manifest, Shard, Split

BOXES = {  # of images of 128 x 96 px: corner, a quarter of each side; whole image; 64 x 4 px; none
    0: [((0, 0, 32, 24), 0), ((0, 0, 128, 96), 1)], 1: [((32, 46, 96, 50), 0)], 2: []}


def batch(images: dict[int, list] = BOXES) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{
        "image_id": number, "file_name": f"{number}.jpg", "image": jpeg(number), "height_px": 96, "width_px": 128,
        "boxes_xyxy": [list(box) for box, _ in objects], "labels": [label for _, label in objects],
        "iscrowd": [False] * len(objects), "area": [1.0] * len(objects), "polygons": [[] for _ in objects]}
        for number, objects in images.items()], ARROW_SCHEMA)


def portrait(rows: pa.RecordBatch, first: int = 0) -> Portrait:
    part = Portrait()
    part.add_batch(rows, "train", first, objects_of(rows), (0, 1))
    return part


def test_figures_of_a_tiny_dataset():
    part = portrait(batch())
    centres = {(4, 4): 1, (16, 16): 2}  # of 32: an eighth; the middle, twice
    assert {tuple(cell): int(part.centres[tuple(cell)]) for cell in np.argwhere(part.centres)} == centres
    sizes = {(24, 24): 1, (31, 31): 1, (13, 28): 1}  # 4 per octave, 32 at 1: 1/4; 1; height 1/24, width 1/2
    assert {tuple(cell): int(part.sizes[tuple(cell)]) for cell in np.argwhere(part.sizes)} == sizes
    assert np.flatnonzero(part.areas).tolist() == [20, 24, 31]  # half octaves: 1/48, 1/16, 1
    assert {bin_: int(part.aspects[bin_]) for bin_ in np.flatnonzero(part.aspects)} == {18: 2, 32: 1}  # 4:3, 16:1
    assert part.objects_per_image == Counter({2: 1, 1: 1, 0: 1})
    assert part.together.tolist() == [[2, 1], [1, 1]]
    assert part.smallest_hw == part.largest_hw == (96, 128) and part.image_sizes[10, 12] == 3
    picks = {choice: [case.index for _, case in chosen] for choice, chosen in part.picks.items()}
    assert sorted(picks.pop("random")) == [0, 1, 2]
    assert picks == {"empty": [2], "most objects": [0, 1], "most crowded": [0, 1], "smallest box": [1, 0],
                     "most elongated box": [1, 0]}
    assert part.picks["most crowded"][0][0] == pytest.approx(1 + 1 / 16)
    assert part.picks["most elongated box"][0][1].detail == "16.0 : 1, 64 x 4 px"


def test_parts_add_up_in_any_order_and_survive_json():
    images = {number: BOXES[number % 3] for number in range(60)}
    whole = portrait(batch(images))
    parts = [portrait(batch({number: images[number] for number in range(first, first + 20)}), first)
             for first in (0, 20, 40)]
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = Portrait()
        for position in order:
            merged.add(Portrait.from_json(json.loads(json.dumps(parts[position].to_json()))))
        assert merged.to_json() == whole.to_json()
    assert all(len(chosen) <= NUM_SHOWN for chosen in whole.picks.values())


def test_bins_and_short_numbers():
    assert binned({0: 3, 2: 1}) == ([3, 0, 1], ["0", "1", "2"], [(.5, "0"), (1.5, "1"), (2.5, "2")])
    bars, names, _ = binned({0: 1, 9: 1, 10: 5, 250: 2})
    assert (bars[:2], bars[-1], names[1], len(bars)) == ([2, 5], 2, "10 to 19", 26)
    assert [short(value) for value in (0, 950, 12_000, 3_400_000)] == ["0", "950", "12k", "3.4M"]


@pytest.fixture
def examination(tmp_path) -> Examination:
    path = tmp_path / "train/0.arrow"
    path.parent.mkdir()
    with pa.ipc.new_file(str(path), ARROW_SCHEMA) as writer:
        writer.write_batch(batch())
    losses = (asdict(Loss("unknown <class>", "object", "train: 7", 1234)),)
    manifest = Manifest(("cat", "d<o>g"), (0, 1), {"train": Split((Shard("train/0.arrow", 3, path.stat().st_size, ""),),
                                                                   3, 3, (2, 1))}, {}, {}, losses)
    found = Examination(str(tmp_path), manifest, "yolov7", 640, counted={"train": Statistics(3, 3, [2, 1])})
    found.portrait = portrait(batch())
    return found


def test_the_page_holds_the_figures(examination):
    document = page(examination)
    assert document == page(examination), "the same images each time"
    assert common_classes(examination.manifest) == (0, 1)
    for text in ("<b>3</b><span>images</span>", "<b>3</b><span>objects</span><small>1.0 per image",
                 "<b>1</b><span>images without objects</span><small>33.3%", "<b>128 × 96</b>",
                 "1 of 2 images with cat hold d&lt;o&gt;g", "1 of 1 images with d&lt;o&gt;g hold cat",
                 "<td class=number>1,234<td>object<td>unknown &lt;class&gt;", "dropped 1,234 objects",
                 "16.0 : 1, 64 x 4 px", "median 1, at most 2"):
        assert text in document, text
    assert "http" not in document and "<script" not in document and "d<o>g" not in document
    assert document.count("<img ") == 3 + 1 + 2 * 4


def test_pictures_stay_within_their_bytes(examination):
    pictures = Pictures(examination.uri, examination.manifest, max_bytes=20_000)
    [case] = [case for _, case in examination.portrait.picks["empty"]]
    drawn = [pictures.of(case) for _ in range(20)]
    assert drawn[0] and not drawn[-1] and sum(map(len, drawn)) < 22_000


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_an_error(examination, tmp_path, width, scheme):
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium: install it, e.g. `apt-get install chromium`")
    from playwright.sync_api import sync_playwright

    (tmp_path / "index.html").write_text(page(examination))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--headless", "--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        errors, requests = [], []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((tmp_path / "index.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    assert background == {"light": "rgb(246, 245, 242)", "dark": "rgb(22, 21, 20)"}[scheme]
    assert not errors and all(url.startswith(("file:", "data:")) for url in requests)
