"""The HTTP server: an application around one model. Importing it needs the extra ``ship``; ``serve`` asks for that."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from setpoint.errors import DataError
from setpoint.shipping.batching import Batcher, Busy
from setpoint.shipping.limits import Limits, Refused, parse_inputs, read_body
from setpoint.shipping.metrics import Metrics
from setpoint.shipping.versions import Served
from setpoint.tasks.sound import Sound

LOOK = 1.0
"""Seconds between two looks at which version is current."""

logger = logging.getLogger("setpoint.serve")


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Predictions(BaseModel):
    """What the model says, input by input."""

    version: str
    predictions: list[dict[str, Any]]


class Health(BaseModel):
    """That the server answers, and with what."""

    status: str
    name: str
    version: str
    task: str
    labels: list[str]


def make_app(served: Served, limits: Limits, token: str | None = None) -> FastAPI:
    """An ASGI application that answers with a model.

    Args:
        served: the model.
        limits: what a request may ask for.
        token: what a request has to bear, but for ``/health``; any may ask unless given.
    """
    metrics = Metrics()

    def run(checked: list[Any]) -> Any:
        start = time.perf_counter()
        answers = served.answer(checked)
        metrics.batch(len(checked), time.perf_counter() - start)
        return answers

    batcher: Batcher[Any, tuple[str, dict[str, Any]]] = Batcher(
        run, most=limits.batch, delay=limits.delay, waiting=limits.waiting
    )
    metrics.waiting(lambda: batcher.waiting)
    metrics.model(lambda: served.version)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher:
            watch = asyncio.create_task(_watch(served))
            yield
            watch.cancel()

    app = FastAPI(
        title=f"Setpoint: {served.shipped.manifest.name}",
        description=f"{served.shipped.manifest.task} with calibrated probabilities.",
        version=served.shipped.manifest.setpoint,
        lifespan=lifespan,
    )

    # Not a dependency of FastAPI's: to resolve one takes a sixth of what a request takes here.
    def authorise(request: Request) -> None:
        if token is not None and not bears(request.headers.get("authorization"), token):
            raise Refused(401, "the bearer token is missing or wrong")

    @app.post(
        "/predict",
        response_model=Predictions,
        responses={code: {"model": Problem} for code in (400, 401, 413, 415, 422, 503)},
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": body_schema(served, limits)}}}
        },
        summary="Label inputs",
    )
    async def predict(request: Request) -> Response:
        authorise(request)
        media = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if media != "application/json":
            raise Refused(415, "the content type is not application/json")
        body = await read_body(request.stream(), request.headers.get("content-length"), limits.body)
        checked = check_inputs(parse_inputs(body, limits.inputs), served, limits)
        try:
            answers = await batcher.submit(checked)
        except Busy:
            raise Refused(503, "too many inputs are waiting; try again later") from None
        metrics.inputs(len(answers))
        version = answers[-1][0] if answers else served.version
        return JSONResponse({"version": version, "predictions": [answer for _, answer in answers]})

    @app.get("/health", response_model=Health, summary="Whether it answers, and with which model")
    async def health() -> Health:
        found = served.shipped.manifest
        return Health(status="ok", name=found.name, version=served.version, task=found.task, labels=list(found.labels))

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: {"model": Problem}},
        summary="Counts and times, for Prometheus",
    )
    async def figures(request: Request) -> Response:
        authorise(request)
        return Response(metrics.text(), media_type=metrics.media_type)

    app.add_middleware(Timed, metrics=metrics)
    _word_errors(app)
    return app


class Timed:
    """Counts and times every request, that of an unknown path and a failed one too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.request(scope.get("route"), status, time.perf_counter() - start)


def check_inputs(inputs: list[Any], served: Served, limits: Limits) -> list[Any]:
    """Raw inputs as the model takes them.

    Raises:
        Refused: 422 for one that is none of the task, 413 for one that is too long.
    """
    shipped, checked = served.shipped, []
    for number, value in enumerate(inputs):
        try:
            one = shipped.read(value, f"input {number}")
        except DataError as error:
            raise Refused(422, str(error)) from None
        length = shipped.task.input_length(one)
        if length > limits.characters:
            raise Refused(413, f"input {number} has {length:,} characters, more than {limits.characters:,}")
        checked.append(one)
    return checked


def bears(header: str | None, token: str) -> bool:
    """Whether an Authorization header holds the token; the time that takes tells nothing of it.

    Examples:
        >>> bears("Bearer abc", "abc"), bears("bearer abd", "abc"), bears("abc", "abc"), bears(None, "abc")
        (True, False, False, False)
    """
    scheme, _, given = (header or "").partition(" ")
    # Headers come as Latin-1; a token may be of any letters.
    same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token.encode("utf-8"))
    return same and scheme.lower() == "bearer"


def body_schema(served: Served, limits: Limits) -> dict[str, Any]:
    """The JSON schema of a request to ``/predict``."""
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": {"type": "array", "maxItems": limits.inputs, "items": _input_schema(served)}},
        "examples": [{"inputs": [_EXAMPLES[served.shipped.manifest.task]]}],
    }


_EXAMPLES: dict[str, Any] = {
    "token-classification": ["Anna", "lives", "in", "Paris"],
    "text-classification": "a text",
    "multi-label-classification": "a text",
    "text-regression": "a text",
    "image-classification": [[0, 255], [255, 0]],
    "extractive-question-answering": ["Where does Anna live?", "Anna lives in Paris."],
    "causal-language-modelling": "a text",
    "sequential-recommendation": ["50", "181"],
    "rating-prediction": ["196", "242"],
    "audio-classification": [0.0, 0.5, -0.5],
    "speech-recognition": [0.0, 0.5, -0.5],
    "object-detection": [[0, 255], [255, 0]],
}
"""An input of each task, for the documentation; a pair of texts, or a question and its text, is a list of two."""


def _input_schema(served: Served) -> dict[str, Any]:
    task, columns = served.shipped.manifest.task, served.shipped.task.input_columns()
    text = {"type": "string"}
    if task == "token-classification":
        return {"anyOf": [{"type": "array", "items": text}, text]}
    texts = ("text-classification", "multi-label-classification", "text-regression", "causal-language-modelling")
    if task in texts:
        return text if len(columns) == 1 else {"type": "array", "items": text, "minItems": 2, "maxItems": 2}
    if task == "extractive-question-answering":
        names = list(columns.values())
        row = {"type": "object", "required": names, "properties": dict.fromkeys(names, text)}
        return {"anyOf": [row, {"type": "array", "items": text, "minItems": 2, "maxItems": 2}]}
    name = {"type": ["string", "integer"]}
    if task == "sequential-recommendation":
        return {"anyOf": [{"type": "array", "items": name}, text]}
    if task == "rating-prediction":
        return {"type": "array", "items": name, "minItems": len(columns), "maxItems": len(columns)}
    if isinstance(served.shipped.task, Sound):
        return {"type": "array", "items": {"type": "number"}}
    return {"type": "array", "items": {"type": "array", "items": {}}}


async def _watch(served: Served) -> None:
    """Take each version as it is promoted. It is opened in a thread, beside the requests that go on."""
    while True:
        await asyncio.sleep(LOOK)
        try:
            if await asyncio.to_thread(served.refresh):
                logger.info("version %s answers now", served.version)
        except Exception:
            logger.exception("the current version could not be looked at")


def _word_errors(app: FastAPI) -> None:
    """Every refusal is a status and one sentence; what nobody expected is told in the log, and not to the client."""

    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(error.status)
        return JSONResponse({"detail": error.detail}, status_code=error.status, headers=headers)

    def not_there(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"detail": str(error.detail)}, status_code=error.status_code, headers=error.headers)

    def gone(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": "the body broke off"}, status_code=400)  # to nobody, but the counts have it

    def unexpected(_: Request, error: Exception) -> Response:
        logger.error("a request failed", exc_info=error)
        return JSONResponse({"detail": "internal error"}, status_code=500)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, not_there)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unexpected)
