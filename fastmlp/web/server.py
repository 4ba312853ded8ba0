"""The server behind the page: it answers on this machine only, and nobody without its token.

/TOKEN/              the page; what is below it has relative addresses, so the token is part of each
/TOKEN/api/...       questions in JSON; an answer that is none has a status and {"error": a sentence}
"""

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastmlp.errors import ModelError, ReportedError
from fastmlp.web.answers import Models, NextWords
from fastmlp.web.bundle import bundle, page_file
from fastmlp.web.questions import MAP, NEIGHBORS, NEXT, RUN, SURPRISE, TRAINING, Field, QuestionError, read_fields
from fastmlp.web.shelf import MissingError, Shelf, TooLargeError
from fastmlp.web.training import BusyError, Training, Trainings

__all__ = ["make_app"]

LARGEST_QUESTION = 4_000_000  # bytes
HEARTBEAT = 1.0  # seconds after which a stream without news says that it lives, and finds out whether anybody listens
STATUS = {MissingError: 404, ModelError: 404, BusyError: 409, TooLargeError: 413}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}
Answer = Callable[[Request], Awaitable[Response]]


def make_app(shelf: Shelf, token: str, host: str) -> ASGIApp:
    """Return the application.

    token  without which nobody is answered
    host   the address and port under which it is reached; a page elsewhere that gives another name to this machine's
           address (DNS rebinding) is not answered
    """
    models, trainings = Models(), Trainings(shelf.folder)

    @contextlib.asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(trainings.close)

    app = Starlette(
        routes=[Mount(f"/{token}", routes=[*page_routes(), *api_routes(shelf, models, trainings)])],
        lifespan=life,
        exception_handlers={ReportedError: explained, HTTPException: explained, Exception: explained},
    )
    return Guard(app, token, host)


class Guard:
    """Refuses whoever does not know the token, and requests that a page of another site has made."""

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {host.encode(), host.replace("127.0.0.1", "localhost", 1).encode()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 403."""
        if scope["type"] == "lifespan" or self._may_ask(scope):
            await self._app(scope, receive, with_headers(send))
        elif scope["type"] == "http":
            refusal = JSONResponse({"error": "open the page by the address that fastmlp.play printed"}, 403)
            await refusal(scope, receive, with_headers(send))

    def _may_ask(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"http://" + headers.get(b"host", b"")).removeprefix(b"http://")
        token = scope["path"].split("/")[1:2]
        return (
            headers.get(b"host") in self._hosts
            and origin in self._hosts
            and bool(token)
            and secrets.compare_digest(token[0].encode(), self._token)
        )


def with_headers(send: Send) -> Send:
    """Return a `send` that adds HEADERS to each answer."""
    added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sending


async def explained(_request: Request, error: Exception) -> Response:
    """Answer an error with its status and a sentence."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": f"{error.detail.lower()}"}, error.status_code)
    if isinstance(error, ReportedError):
        return JSONResponse({"error": str(error)}, STATUS.get(type(error), 400))
    return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)


# ----------------------------------------------------------------------------------------------------- the page's files


def page_routes() -> list[Route]:
    """Return the routes of the page itself: three files."""

    def route(path: str, kind: str, content: Callable[[], str]) -> Route:
        async def answer(_request: Request) -> Response:
            return Response(content(), media_type=kind)

        return Route(path, answer)

    return [
        route("/", "text/html", partial(page_file, "page.html")),
        route("/page.css", "text/css", partial(page_file, "page.css")),
        route("/page.js", "text/javascript", partial(bundle, "page")),
    ]


# ------------------------------------------------------------------------------------------------------------ questions


async def question(request: Request, fields: dict[str, Field]) -> dict[str, Any]:
    """Return the fields of a request's JSON body. Raise QuestionError, or TooLargeError before it is read whole."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_QUESTION:
            raise TooLargeError(f"a question of more than {LARGEST_QUESTION // 10**6} MB is not read")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise QuestionError("expected JSON") from None
    return read_fields(given, fields)


def api_routes(shelf: Shelf, models: Models, trainings: Trainings) -> list[Route]:
    """Return the routes of the questions."""

    def asked(fields: dict[str, Field], answer: Callable[..., Any]) -> Answer:
        """Return what answers a question: in a thread, since a network takes its time."""

        async def answered(request: Request) -> Response:
            found = await question(request, fields)
            return JSONResponse(await run_in_threadpool(partial(answer, **found)))

        return answered

    def facts(run: str) -> dict[str, Any]:
        return models.model(shelf.run(run)).facts()

    def next_words(run: str, **asked: Any) -> dict[str, Any]:
        return models.model(shelf.run(run)).next_words(NextWords(**asked))

    def surprise(run: str, **asked: Any) -> dict[str, Any]:
        return models.model(shelf.run(run)).surprise(**asked)

    def word_map(run: str, count: int) -> dict[str, Any]:
        return models.model(shelf.run(run)).word_map(count)

    def neighbors(run: str, word: str, count: int) -> dict[str, Any]:
        return {"neighbors": models.model(shelf.run(run)).neighbors(word, count)}

    async def overview(_request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(all_there_is))

    def all_there_is() -> dict[str, Any]:
        last = trainings.last
        return {
            "runs": shelf.runs(),
            "first": shelf.first,
            "texts": shelf.texts(),
            "training": last and {"run": last.run, "running": last.running},
        }

    def train(text: str | None, resume: str | None, minutes: float | None) -> dict[str, Any]:
        if (text is None) == (resume is None):
            raise QuestionError("expected either a text or a run to resume")
        if resume is not None:
            run = shelf.run(resume)
            training = trainings.start(resume, ["--resume", "--out", str(run)])
        else:
            file, name = shelf.text(str(text)), shelf.new_run(str(text))
            limit = [] if minutes is None else ["--minutes", f"{minutes:g}"]
            training = trainings.start(name, [f"./{file}", "--out", f"runs/{name}", *limit])
        return {"run": training.run}

    def stop() -> dict[str, Any]:
        if trainings.last is None or not trainings.last.running:
            raise MissingError("nothing is being trained")
        trainings.last.stop()
        return {"run": trainings.last.run}

    async def take_text(request: Request) -> Response:
        try:
            return JSONResponse({"name": await shelf.take(request.query_params.get("name", ""), request.stream())})
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    async def events(_request: Request) -> Response:
        if trainings.last is None:
            raise MissingError("nothing has been trained since the server began")
        return StreamingResponse(as_lines(trainings.last), media_type="application/x-ndjson")

    routes: dict[str, tuple[str, Answer]] = {
        "overview": ("GET", overview),
        "facts": ("POST", asked({"run": RUN}, facts)),
        "next": ("POST", asked({"run": RUN, **NEXT}, next_words)),
        "surprise": ("POST", asked({"run": RUN, **SURPRISE}, surprise)),
        "map": ("POST", asked({"run": RUN, **MAP}, word_map)),
        "neighbors": ("POST", asked({"run": RUN, **NEIGHBORS}, neighbors)),
        "history": ("POST", asked({"run": RUN}, shelf.history)),
        "texts": ("PUT", take_text),
        "train": ("POST", asked(TRAINING, train)),
        "stop": ("POST", asked({}, stop)),
        "events": ("GET", events),
    }
    return [Route(f"/api/{name}", answer, methods=[method]) for name, (method, answer) in routes.items()]


def as_lines(training: Training) -> Iterator[str]:
    """Yield the events of a training as lines of JSON, and an empty line where there are none for a while."""
    for event in training.events(HEARTBEAT):
        yield "\n" if event is None else json.dumps(event) + "\n"
