"""The reference application: a page that streams, and the same for programs.

| path | what |
| --- | --- |
| `GET /` | the page |
| `POST /stream` | a question as JSON (`Question`), answered in any of the formats |
| `GET /stream?prompt=` | the same for `EventSource`, in a page of this site's |
| `POST /stop` | the name of a question (`Stop`), whose answer ends |
| `POST /v1/chat/completions`, `GET /v1/models` | OpenAI's API, for its clients |
| `GET /api/providers` | what can be asked |
| `GET /healthz` | whether it is up |

Prompts, tokens and answers are written to no log.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from flask import Flask, Response, request, send_from_directory
from werkzeug.exceptions import HTTPException

from .._version import __version__
from ..errors import ConfigurationError, ConnectionLost, StreamClosed, StreamError
from ..sync.ask import check_question, stream_sync
from ..sync.stream import TokenStream
from .answers import Answers
from .body import StreamBody, make_body
from .chat_completions import (
    AskedChunks,
    ChatCompletionsRequest,
    answer_body,
    error_body,
    models_body,
)
from .formats import find_format
from .guard import PAGE_HEADERS, Guard
from .leaving import ended_by_leaving
from .log import log_error, one_line
from .problem import Problem, RefusedError, gone, misconfigured, problem_of
from .questions import Limits, Question, Stop, Target, bad, convert, texts
from .replay import MemoryReplay, ReplayStore, check_seconds
from .retelling import Asked
from .slots import Slot, Slots

__all__ = ["Limits", "Question", "Site", "Stop", "Target"]

_log = logging.getLogger(__name__)

_PAGE = Path(__file__).parent / "page"
_OPENAI = "/v1/"
#: How long the provider's status is waited for, in seconds; the answer begins then.
_STATUS_WAIT_S = 10.0
#: How long an answer is kept after its end, in seconds, for who was cut off before it.
_KEPT_S = 60.0
#: Whose the kept answers are. The site knows no visitors: who comes back shows the answer's id,
#: or its name, and neither can be guessed.
_KEY = "visitors"
#: What needs no token: it tells nothing, and the page has to come before its token.
_OPEN = frozenset({"/", "/style.css", "/app.js", "/healthz"})
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Max-Age": "600",
}


class Site:
    """The reference application.

    Args:
        targets: Who can be asked; the first is asked where the visitor names nobody.
        guard: Who may ask.
        limits: How much.
        heartbeat_s: How long nothing may be sent, in seconds.
        grace_s: How long an answer goes on that nobody reads, in seconds: so long a browser whose
            connection broke may come back for it.
        replay: Where answers are kept for that; else in this process's memory.

    Attributes:
        app: The Flask application, for any WSGI server.
        limits: As above.
        slots: The streams that run.

    Raises:
        ConfigurationError: There is nobody to ask, or one of the arguments cannot be.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        guard: Guard | None = None,
        limits: Limits | None = None,
        heartbeat_s: float = 2.0,
        grace_s: float = 15.0,
        replay: ReplayStore | None = None,
    ) -> None:
        if not targets:
            raise ConfigurationError("a site needs at least one provider")
        check_seconds("heartbeat_s", heartbeat_s)
        check_seconds("grace_s", grace_s)
        if replay is not None and not isinstance(replay, ReplayStore):
            raise ConfigurationError(
                f"replay must be a store, such as MemoryReplay(), not {type(replay).__name__}"
            )
        self._targets = {target.name: target for target in targets}
        self._first = targets[0]
        self._guard = guard or Guard()
        self.limits = limits or Limits()
        self._heartbeat_s = heartbeat_s
        self._grace_s = grace_s
        self.slots = Slots(self.limits.max_streams, self.limits.max_streams_per_client)
        store = replay or MemoryReplay(max_streams=1000 + self.limits.max_streams, ttl_s=_KEPT_S)
        self._answers = Answers(store, self.slots)
        self.app = app = Flask(__name__, static_folder=None)
        app.url_map.strict_slashes = False
        app.config["MAX_CONTENT_LENGTH"] = self.limits.max_request_bytes
        app.before_request(self._let_in)
        app.after_request(self._dress)
        app.register_error_handler(RefusedError, lambda error: _answer(error.problem))
        app.register_error_handler(HTTPException, _http_error)
        app.register_error_handler(500, _failed)
        app.add_url_rule("/", "page", lambda: _page("index.html"))
        for name in ("style.css", "app.js"):
            app.add_url_rule(f"/{name}", name, partial(_page, name))
        app.add_url_rule("/healthz", view_func=_health)
        app.add_url_rule("/api/providers", view_func=self._providers)
        app.add_url_rule("/stream", "ask", self._ask, methods=["POST"])
        app.add_url_rule("/stream", "ask_by_query", self._ask_by_query, methods=["GET"])
        app.add_url_rule("/stop", view_func=self._stop, methods=["POST"])
        app.add_url_rule("/v1/models", view_func=self._models)
        app.add_url_rule("/v1/chat/completions", "complete", self._complete, methods=["POST"])

    # --- every request ---

    def _let_in(self) -> Response | None:
        """Answer those who may not ask, and preflights."""
        headers = request.headers
        refusal = self._guard.refuse_host(headers.get("Host", ""))
        is_open = request.path in _OPEN
        if refusal is None and not is_open:
            refusal = self._guard.refuse_origin(
                host=headers.get("Host", ""),
                origin=headers.get("Origin"),
                site=headers.get("Sec-Fetch-Site"),
            )
        if refusal is None and request.method == "OPTIONS":
            return Response(status=204, headers=_preflight())
        if refusal is None and not is_open:
            refusal = self._guard.refuse_token(headers.get("Authorization"))
        return None if refusal is None else _answer(refusal)

    def _dress(self, response: Response) -> Response:
        """Add the headers that go with everything."""
        response.headers.update(PAGE_HEADERS)
        response.headers.update(self._guard.origin_headers(request.headers.get("Origin")))
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    # --- what there is ---

    def _providers(self) -> Response:
        return _json(
            {
                "version": __version__,
                "fake": all(target.fake for target in self._targets.values()),
                "max_prompt_chars": self.limits.max_prompt_chars,
                "heartbeat_s": self._heartbeat_s,
                "grace_s": self._grace_s,
                "providers": [
                    {"name": target.name, "model": target.model}
                    for target in self._targets.values()
                ],
            }
        )

    def _models(self) -> Response:
        names = (f"{target.name}/{target.model}" for target in self._targets.values())
        return Response(models_body(names), content_type="application/json")

    # --- questions ---

    def _ask(self) -> Response:
        return self._stream(_read(Question))

    def _ask_by_query(self) -> Response:
        if request.method == "HEAD":  # it is no question
            return Response(content_type="text/event-stream; charset=utf-8")
        headers = request.headers
        refusal = self._guard.refuse_get(
            origin=headers.get("Origin"), site=headers.get("Sec-Fetch-Site")
        )
        if refusal is not None:
            return _answer(refusal)
        for name, values in request.args.lists():
            if len(values) > 1:
                raise bad(f"{name[:40]!r} is there {len(values)} times")
        return self._stream(convert(Question, request.args.to_dict(), strict=False))

    def _stop(self) -> Response:
        """End an answer; whether there was one is nobody's affair."""
        self.slots.stop(_read(Stop).name)
        return Response(status=204)

    def _stream(self, question: Question) -> Response:
        """Answer a question in the format that it asks for, or tell its answer again."""
        question.check(self.limits)
        target = self._targets.get(question.provider or self._first.name)
        if target is None:
            raise bad(f"unknown provider; there are: {', '.join(self._targets)}")
        if find_format(question.format).heartbeat is None:
            return self._tell_once(target, question)
        return self._tell(target, question)

    def _tell(self, target: Target, question: Question) -> Response:
        """Answer so that who is cut off may come back, with the id of what he has."""
        visit = self._answers.visit(_client(), question.name)

        def opened() -> TokenStream:
            stream = _open(target, question.model, question.arguments)
            visit.hold(stream)
            return stream

        asked = Asked(
            store=visit,
            key=_KEY,
            name=question.stream_name,
            format=question.format,
            grace_s=self._grace_s,
        )
        body = make_body(
            opened,
            format=question.format,
            status_wait_s=_STATUS_WAIT_S,
            heartbeat_s=self._heartbeat_s,
            asked=asked.with_headers(request.headers.get),
        )
        return _answer(body) if isinstance(body, Problem) else _begin(body)

    def _tell_once(self, target: Target, question: Question) -> Response:
        """Answer in a format without ids: who is cut off cannot come back."""
        if "Last-Event-ID" in request.headers:
            return _answer(gone())
        slot, stream = self._start(target, question.model, question.arguments, question.name)
        try:
            body = make_body(
                stream,
                format=question.format,
                status_wait_s=_STATUS_WAIT_S,
                heartbeat_s=self._heartbeat_s,
            )
            assert isinstance(body, StreamBody)
            return _begin(body, slot)
        except BaseException:
            slot.release()
            raise

    def _complete(self) -> Response:
        """Answer a client of OpenAI's, streaming or not."""
        asked = _read(ChatCompletionsRequest)
        self.limits.check_length(texts(asked.arguments()))
        name, _, model = asked.model.partition("/")
        target = self._targets.get(name)
        if target is None:
            target, model = self._first, asked.model
        slot, stream = self._start(target, model, asked.arguments())
        if not asked.stream:
            try:
                return self._whole(stream, model or target.model)
            finally:
                slot.release()
        try:
            chunks = AskedChunks(model or target.model, usage=asked.include_usage)
            body = StreamBody(
                stream, chunks, heartbeat_s=self._heartbeat_s, status_wait_s=_STATUS_WAIT_S
            )
            return _begin(body, slot)
        except BaseException:
            stream.close()
            slot.release()
            raise

    def _whole(self, stream: TokenStream, model: str) -> Response:
        """Answer with all of it."""
        try:
            with ended_by_leaving(stream, request.environ):
                stream.text()
        except StreamClosed:  # the site ends, or the client has left
            return _answer(problem_of(ConnectionLost("the answer was ended")))
        except StreamError as error:
            log_error(_log, error)
            return _answer(problem_of(error))
        return Response(answer_body(stream.completion, model), content_type="application/json")

    def _start(
        self, target: Target, model: str | None, given: dict[str, Any], name: str | None = None
    ) -> tuple[Slot, TokenStream]:
        """Take a place, and ask.

        Raises:
            RefusedError: There is no place, or the question cannot be asked.
        """
        slot = self.slots.take(_client(), name)
        if isinstance(slot, Problem):
            raise RefusedError(slot)
        try:
            stream = _open(target, model, given)
        except BaseException:
            slot.release()
            raise
        slot.hold(stream)
        return slot, stream


def _preflight() -> dict[str, str]:
    """Return what an allowed page may send: whatever it asks for, as OpenAI's client has its own.

    To any other page these say nothing: there is no `Access-Control-Allow-Origin` with them.
    """
    wanted = request.headers.get("Access-Control-Request-Headers")
    return _PREFLIGHT if wanted is None else {**_PREFLIGHT, "Access-Control-Allow-Headers": wanted}


def _client() -> str:
    return request.remote_addr or ""


def _open(target: Target, model: str | None, given: dict[str, Any]) -> TokenStream:
    """Ask.

    Raises:
        RefusedError: The question cannot be asked, which is the visitor's fault; or nothing can be
            asked there, which is the site's, and told to its log alone.
    """
    try:
        return stream_sync(**{"model": model or target.model, **given, **target.arguments})
    except ConfigurationError as error:
        try:
            check_question("Hi", **{"model": target.model, **target.arguments})
        except ConfigurationError as own:  # it quotes no visitor
            _log.error("%s cannot be asked: %s", target.name, one_line(str(own)))
            raise RefusedError(misconfigured()) from own
        raise bad(str(error)) from error


def _begin(body: StreamBody, slot: Slot | None = None) -> Response:
    """Answer with a body, or with what there is instead of it.

    Args:
        body: The body.
        slot: Given back when the response has ended, or is dropped.
    """
    try:
        problem = body.wait_started(_STATUS_WAIT_S)
    except BaseException:
        body.close()
        raise
    if problem is None:
        response = Response(body, headers=body.headers)
        if slot is not None:
            response.call_on_close(weakref.finalize(response, slot.release))
        return response
    if slot is not None:
        slot.release()
    return _answer(problem)


def _read(type_: type[Any]) -> Any:
    """Read a JSON body.

    A form's content types are refused: every page may send them anywhere without being asked.

    Raises:
        RefusedError: It is none, or not what the type says.
    """
    if request.mimetype != "application/json":
        raise bad("The question must be application/json.", status=415)
    try:
        value = msgspec.json.decode(request.get_data())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"The question is not JSON: {error}") from error
    return convert(type_, value)


def _answer(problem: Problem) -> Response:
    """Answer with a problem, in OpenAI's words to OpenAI's clients."""
    headers = dict(problem.headers)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if request.path.startswith(_OPENAI):
        headers["Content-Type"] = "application/json"
        return Response(error_body(problem), problem.status, headers)
    return Response(problem.body, problem.status, headers)


def _http_error(error: HTTPException) -> Response:
    """Say what the framework found wrong: no such path, another method, too large."""
    answer = _answer(
        Problem(
            title=error.name,
            status=error.code or 500,
            detail=f"{error.name}.",
            code="invalid_request",
            retryable=False,
        )
    )
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        answer.headers["Allow"] = ", ".join(allowed)
    return answer


def _failed(error: Exception) -> Response:
    """Say that something went wrong; the framework has logged what."""
    return _answer(problem_of(error))


def _page(name: str) -> Response:
    return send_from_directory(_PAGE, name)


def _health() -> Response:
    return _json({"status": "ok"})


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")
