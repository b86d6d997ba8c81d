"""The composer's page and its requests, served to this machine alone."""

from __future__ import annotations

import logging
from importlib import resources
from urllib.parse import quote

import numpy as np
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from pipeline_lib.composer.session import Composer, Request
from pipeline_lib.imaging.png import data_url, encode_png
from pipeline_lib.runtime.errors import PipelineError

logger = logging.getLogger(__name__)

HOSTS = ["127.0.0.1", "localhost"]  # no other name leads here, whatever a foreign page makes of its own
FAST = 1  # compression of what is shown while somebody draws


def create_app(composer: Composer) -> Starlette:
    """Return the web application of a composer.

    It answers requests that are named by this machine alone, and takes JSON alone, which no form of another site can
    send.
    """

    async def page(_: HttpRequest) -> Response:
        return HTMLResponse(resources.files("pipeline_lib.composer").joinpath("page.html").read_text("utf-8"))

    async def images(_: HttpRequest) -> Response:
        shown = {name: _url(composer.pixels(name)) for name in composer.images}
        return JSONResponse({"side": composer.side, "images": shown})

    async def edit(http: HttpRequest) -> Response:
        found = await run_in_threadpool(composer.edit, await _read(http))
        stages = {name: _url(getattr(found, name)) for name in ("collage", "composite", "finished")}
        return JSONResponse(stages | {"milliseconds": 1000 * found.seconds})

    async def keep(http: HttpRequest) -> Response:
        name = await run_in_threadpool(composer.keep, await _read(http))
        return JSONResponse({"name": name, "image": _url(composer.pixels(name))})

    async def download(http: HttpRequest) -> Response:
        name = http.path_params["name"]
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}.png"}
        return Response(
            encode_png(composer.pixels(name), composer.lineage(name)), media_type="image/png", headers=headers
        )

    async def refuse(_: HttpRequest, error: Exception) -> Response:
        return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)

    async def refuse_request(_: HttpRequest, error: Exception) -> Response:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return JSONResponse({"error": f"{place}: {first['msg']}" if place else first["msg"]}, status_code=400)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/images", images),
            Route("/edit", edit, methods=["POST"]),
            Route("/keep", keep, methods=["POST"]),
            Route("/download/{name}.png", download),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
        exception_handlers={PipelineError: refuse, ValidationError: refuse_request},
    )


def serve(composer: Composer, port: int) -> None:
    """Serve the composer on this machine until it is interrupted."""
    import uvicorn

    logger.info("open http://127.0.0.1:%d in a browser; Ctrl+C ends it", port)
    uvicorn.run(create_app(composer), host="127.0.0.1", port=port, log_level="warning")


async def _read(http: HttpRequest) -> Request:
    if http.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise PipelineError("a request must be JSON")
    return Request.model_validate_json(await http.body())


def _url(pixels: np.ndarray) -> str:
    return data_url(encode_png(pixels, level=FAST))
