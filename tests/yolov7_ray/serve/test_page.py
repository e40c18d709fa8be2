"""The web page in a real headless Chromium: an image is dropped on it, and its boxes are seen."""

import base64
import os
import shutil

import pytest
from serving import deployed, expected_boxes, picture, register_blind_model

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
  const pen = document.getElementById("canvas").getContext("2d");
  return points.map(([x, y]) => [...pen.getImageData(x, y, 1, 1).data]);
}"""


@pytest.fixture(scope="module")
def endpoint(ray_session, tmp_path_factory):
    directory = tmp_path_factory.mktemp("registry")
    register_blind_model(str(directory / "registry"), directory, "shapes", label=1)
    register_blind_model(str(directory / "registry"), directory, "cars", label=0)
    with deployed(str(directory / "registry")) as url:
        yield url


@pytest.fixture
def page(endpoint):
    """The page, open in a browser; any error on it, and any request to another host, fails the test."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium: install it, e.g. `apt-get install chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page(viewport={"width": 1100, "height": 720})
        page.set_default_timeout(30_000)
        errors, elsewhere = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if request.url.startswith((endpoint, "blob:", "data:"))
                else elsewhere.append(request.url))
        page.goto(endpoint)
        page.locator("#model option").nth(1).wait_for(state="attached")
        yield page
        browser.close()
    assert not elsewhere, "the page is whole in itself"
    assert not [error for error in errors if "400 (Bad Request)" not in error]


def drop(page, image: bytes, media_type: str = "image/jpeg", name: str = "picture.jpg") -> None:
    page.evaluate(DROP, [base64.b64encode(image).decode(), media_type, name])


@pytest.mark.ray
@pytest.mark.slow
def test_dropped_image_shows_its_boxes(page):
    drop(page, picture(480, 640))
    page.wait_for_selector("#list li")
    assert page.locator("#list li span").all_inner_texts() == ["dog"] * 4
    assert page.locator("#list li em").all_inner_texts() == ["0.81"] * 4
    assert page.locator("#summary").inner_text().startswith("4 objects")
    if path := os.environ.get("YOLOV7_SCREENSHOT"):
        page.screenshot(path=path)
    assert page.evaluate("[canvas.width, canvas.height]") == [640, 480]
    lower_edges = [[(box[0] + box[2]) / 2, box[3]] for box in expected_boxes(480, 640).tolist()]
    colour = page.evaluate("getComputedStyle(document.querySelector('#list li i')).backgroundColor")
    expected = [int(value) for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    for pixel in page.evaluate(PIXELS, [[[round(x), round(y)] for x, y in lower_edges]]):
        assert max(abs(a - b) for a, b in zip(pixel, expected)) <= 40, "a box edge in the colour of its list entry"


@pytest.mark.ray
@pytest.mark.slow
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


@pytest.mark.ray
@pytest.mark.slow
def test_docs_page_lists_the_routes(page, endpoint):
    page.goto(f"{endpoint}/docs")
    page.wait_for_selector("article h2")
    routes = page.locator("article h2").all_inner_texts()
    assert any("/v1/detect" in route for route in routes)
    assert any("/v2/models/{name}/infer" in route for route in routes)
    assert f"{endpoint}/v1/detect" in page.locator("#curl").inner_text()
    if path := os.environ.get("YOLOV7_SCREENSHOT"):
        page.screenshot(path=path.replace(".png", "-docs.png"))
