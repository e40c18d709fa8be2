"""The pages, and the sample image that is drawn for them. Each page is one answer: nothing is fetched from elsewhere."""

from collections.abc import Callable
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse

from ...data.sources.shapes import generate_shape_image

PAGE_HEADERS = {  # no other site may frame them
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'unsafe-inline'; "
                               "script-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
SAMPLE_SIZE_PX = 128
"""As the quickstart's."""


def router() -> APIRouter:
    """The pages need no token even if one is required: they hold no data and ask for the token themselves."""
    api = APIRouter(include_in_schema=False)
    api.add_api_route("/", _page("page"))
    api.add_api_route("/docs", _page("docs"))

    @api.get("/sample.jpg")
    def sample(seed: Annotated[int, Query(ge=0, lt=2**32)] = 0) -> Response:
        """Shapes, as those that the quickstart learns."""
        image = generate_shape_image(seed, 0, SAMPLE_SIZE_PX)["image"]
        return Response(image, media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})

    return api


def _page(name: str) -> Callable:
    folder = files(__package__)
    text = folder.joinpath(f"{name}.html").read_text(encoding="utf-8")
    for part in ("theme.css", f"{name}.css", f"{name}.js"):
        text = text.replace(f"/* {part} */", folder.joinpath(part).read_text(encoding="utf-8"))

    async def answer() -> HTMLResponse:
        return HTMLResponse(text, headers=PAGE_HEADERS)

    return answer
