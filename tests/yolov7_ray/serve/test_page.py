"""The web page in a real headless Chromium: an image is dropped on it, and its boxes are seen."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright
from local_endpoint import LocalModel, served
from serving import ask, expected_boxes, picture

from yolov7_ray.serve.access.spec import Token, sha256_of
from yolov7_ray.serve.access.tokens import Tokens

ROOT = Path(__file__).parents[3]
PATHS = [ROOT / "platform", ROOT]

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]

DROP = """async ([encoded, type, name]) => {
  const bytes = Uint8Array.from(atob(encoded), c => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type}));
  for (const kind of ["dragover", "drop"])
    document.getElementById("stage").dispatchEvent(
      new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""

PIXELS = """([points]) => {
  const canvas = document.getElementById("canvas"), pen = canvas.getContext("2d"), {scale, margin} = canvas.dataset;
  return points.map(([x, y]) => [...pen.getImageData(x * scale + +margin, y * scale + +margin, 1, 1).data]);
}"""
"""Colours at points of the picture."""


class Cars(LocalModel):
    """Sees cats wherever the other sees dogs."""

    info = replace(LocalModel.info, name="cars", ref="cars:1")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with served(models={"shapes": LocalModel(), "cars": Cars(label=0)}) as running:
        yield running.url


@contextmanager
def opened(url: str, *known: str) -> Iterator[Page]:
    """The page, open in a browser; any error on it but `known` ones, and any request to another host, fails the test."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium: install it, e.g. `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page(viewport={"width": 1100, "height": 720})
        page.set_default_timeout(30_000)
        errors, elsewhere = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if request.url.startswith((url, "blob:", "data:"))
                else elsewhere.append(request.url))
        page.goto(url)
        yield page
        browser.close()
    assert not elsewhere, "the page is whole in itself"
    assert not [error for error in errors if not any(text in error for text in known)]


@pytest.fixture
def page(endpoint):
    with opened(endpoint, "400 (Bad Request)") as page:
        page.locator("#model option").nth(1).wait_for(state="attached")
        yield page


def drop(page, image: bytes, media_type: str = "image/jpeg", name: str = "picture.jpg") -> None:
    page.evaluate(DROP, [base64.b64encode(image).decode(), media_type, name])


def test_dropped_image_shows_its_boxes(page):
    drop(page, picture(480, 640))
    page.wait_for_selector("#list li")
    assert page.locator("#list li span").all_inner_texts() == ["dog"] * 4
    assert page.locator("#list li em").all_inner_texts() == ["0.81"] * 4
    assert page.locator("#summary").inner_text().startswith("4 objects in ")
    if path := os.environ.get("YOLOV7_SCREENSHOT"):
        page.screenshot(path=path)
    scale, margin = (float(page.locator("#canvas").get_attribute(f"data-{name}")) for name in ("scale", "margin"))
    assert page.evaluate("[canvas.width, canvas.height]") == [round(side * scale + 2 * margin) for side in (640, 480)]
    lower_edges = [[(box[0] + box[2]) / 2, box[3]] for box in expected_boxes(480, 640).tolist()]
    colour = page.evaluate("getComputedStyle(document.querySelector('#list li i')).backgroundColor")
    expected = [int(value) for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    for pixel in page.evaluate(PIXELS, [lower_edges]):
        assert max(abs(a - b) for a, b in zip(pixel, expected)) <= 40, "a box edge in the colour of its list entry"


def test_slider_model_and_errors(page):
    drop(page, picture(120, 160))
    page.wait_for_selector("#list li")
    page.locator("#confidence").fill("0.85")
    assert page.locator("#list li").count() == 0 and page.locator("#summary").inner_text().startswith("0 objects")
    page.locator("#confidence").fill("0.5")
    assert page.locator("#list li").count() == 4
    page.locator("#model").select_option("cars")
    page.locator("#list li span", has_text="cat").nth(3).wait_for()
    page.locator("#list li").first.hover()
    assert page.locator("#list li").count() == 4
    drop(page, b"no image", name="notes.jpg")
    page.wait_for_selector("#summary.wrong")
    assert page.locator("#summary").inner_text() == "notes.jpg is no image that can be shown."
    assert page.locator("canvas").is_hidden() and page.locator("#list li").count() == 0


def test_docs_page_lists_the_routes(page, endpoint):
    page.goto(f"{endpoint}/docs")
    page.wait_for_selector("article h2")
    routes = page.locator("article h2").all_inner_texts()
    assert any("/v1/detect" in route for route in routes)
    assert any("/v2/models/{name}/infer" in route for route in routes)
    assert f"{endpoint}/v1/detect" in page.locator("#curl").inner_text()
    if path := os.environ.get("YOLOV7_SCREENSHOT"):
        page.screenshot(path=path.replace(".png", "-docs.png"))


def test_a_small_image_is_enlarged_and_no_label_covers_an_object(page):
    drop(page, picture(48, 64))
    page.wait_for_selector("#list li")
    canvas = page.locator("#canvas")
    assert float(canvas.get_attribute("data-scale")) == 8
    before = page.evaluate(PIXELS, [[[(a[0] + a[2]) / 2, (a[1] + a[3]) / 2] for a in expected_boxes(48, 64).tolist()]])
    page.locator("#confidence").fill("0.95")
    after = page.evaluate(PIXELS, [[[(a[0] + a[2]) / 2, (a[1] + a[3]) / 2] for a in expected_boxes(48, 64).tolist()]])
    assert before == after, "the middle of an object is the picture's"
    found = page.evaluate("""() => {
      const pen = document.createElement("canvas").getContext("2d"), name = "dog", boxes = [[30, 30, 90, 60], [30, 62, 90, 90], [300, 0, 400, 9]];
      return places(boxes.map(box => ({name, score: .5})), boxes, pen, [400, 200]).map(({index, box}) => [index, box]);
    }""")
    placed = {index: box for index, box in found}
    assert sorted(placed) == [0, 1, 2]
    assert placed[0][3] <= 30 and placed[1][1] >= 90 and placed[2][1] >= 9, "above, below, and below at the upper edge"
    for x1, y1, x2, y2 in placed.values():
        assert 0 <= x1 and x2 <= 400 and 0 <= y1 and y2 <= 200


def test_samples_and_several_images(page):
    page.locator("#invite .sample").click()
    page.wait_for_selector("#list li")
    assert page.locator("#strip").is_hidden() and page.locator("#summary").inner_text().endswith("128 × 128")
    page.locator("header .sample").click()
    page.locator("#strip b").nth(1).wait_for()
    drop(page, b"no image", name="notes.jpg")
    page.locator("#strip b", has_text="!").wait_for()
    assert page.locator("#strip b").all_inner_texts() == ["4", "4", "!"]
    page.locator("#strip button").first.click()
    assert page.locator("#list li").count() == 4 and page.locator("#summary").inner_text().endswith("sample-1.jpg")
    assert page.locator("#stages span").all_inner_texts()[2] == "model 1.0 ms"
    page.locator("#model").select_option("cars")
    page.locator("#list li span", has_text="cat").nth(3).wait_for()


def test_json_and_commands(page, endpoint, tmp_path):
    drop(page, picture(120, 160))
    page.wait_for_selector("#list li")
    page.locator("#tab-json").click()
    answer = json.loads(page.locator("#answer").inner_text())
    assert len(answer["detections"]) == 4 and answer.keys() >= {"model", "stages_ms", "inference_ms"}
    assert page.locator("#objects").is_hidden()
    page.locator("#confidence").fill("0.5")
    page.locator("#tab-code").click()
    (tmp_path / "image.jpg").write_bytes(picture(120, 160))
    command = page.locator("#curl").inner_text()
    assert command == f"curl -F file=@image.jpg '{endpoint}/v1/detect?model=shapes&confidence=0.5'"
    said = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, timeout=60, check=True).stdout
    assert json.loads(said)["detections"] == answer["detections"]
    for block in ("python", "own"):
        compile(page.locator(f"#{block}").inner_text(), block, "exec")
    said = subprocess.run([sys.executable, "-c", page.locator("#own").inner_text()], cwd=tmp_path, timeout=120,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PATHS))}, capture_output=True)
    assert said.returncode == 0 and (tmp_path / "drawn.png").exists(), said.stderr
    page.locator("[data-of=curl]").click()
    page.locator("[data-of=curl]", has_text="Copied").wait_for()


def test_every_documented_request_works_as_it_stands(endpoint):
    """Bodies, errors and examples of every route, as its description tells them."""
    api = ask(f"{endpoint}/openapi.json").json
    tried = 0
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            assert route.get("description"), path
            named = {parameter["name"]: parameter for parameter in route.get("parameters", ())}
            url = endpoint + (path.replace("{name}", named["name"]["schema"]["examples"][0]) if "{name}" in path else path)
            body = route.get("requestBody", {}).get("content", {})
            if "application/json" in body:
                answer = ask(url, json.dumps(body["application/json"]["example"]).encode(), content_type="application/json")
                example = route["responses"]["200"]["content"]["application/json"]["example"]
                assert answer.status == 200, answer.body
                assert type(answer.json) is type(example)
                if isinstance(example, dict):
                    assert answer.json.keys() == example.keys()
                tried += 1
            elif method == "post":
                answer = ask(url, picture() if body else b"")
                assert answer.status == (400 if path.endswith("load") else 200), path
            else:
                assert ask(url).status == 200, path
            if method == "post":
                assert path.endswith("load") or {"400", "413", "415", "503"} <= route["responses"].keys()
            assert path in ("/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready") or {
                "401", "403"} <= route["responses"].keys(), path
    assert tried == 4
    example = api["paths"]["/v1/detect"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert ask(f"{endpoint}/v1/detect", picture()).json.keys() == example.keys()


def test_a_token_is_asked_for():
    tokens = Tokens({"people": Token(sha256=sha256_of("sesame"))})
    with served(tokens=tokens) as guarded, opened(guarded.url, "401 (Unauthorized)") as page:
        page.locator("#token").wait_for()
        assert page.locator("#summary").inner_text().startswith("authorization: bearer token is missing")
        page.locator("#invite .sample").click()
        page.locator("#summary.wrong", has_text="authorization").wait_for()
        page.locator("#token").fill("sesame")
        page.locator("#token").blur()
        page.wait_for_selector("#list li")
        assert page.locator("#list li").count() == 4 and page.locator("#model option").count() == 1
        page.locator("#tab-code").click()
        assert page.locator("#curl").inner_text().startswith('curl -H "Authorization: Bearer $TOKEN" -F file=@image.jpg ')
        assert "sesame" not in page.locator("#code").inner_text()
