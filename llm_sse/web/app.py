"""The reference application: a page that streams, and the same for programs.

| path | what |
| --- | --- |
| `GET /` | the page |
| `POST /stream` | a question as JSON (`Question`), answered in any of the formats |
| `GET /stream?prompt=` | the same for `EventSource` |
| `POST /v1/chat/completions`, `GET /v1/models` | OpenAI's API, for its clients |
| `GET /api/providers` | what can be asked |
| `GET /healthz` | whether it is up |

Prompts, tokens and answers are written to no log.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional

import msgspec
from flask import Flask, Response, request, send_from_directory
from msgspec import Struct
from werkzeug.exceptions import HTTPException

from .._version import __version__
from ..errors import ConfigurationError, StreamError
from ..sync.ask import stream_sync
from ..sync.stream import TokenStream
from .body import StreamBody
from .chat_completions import (
    AskedChunks,
    ChatCompletionsRequest,
    answer_body,
    error_body,
    models_body,
)
from .flask import sse_response
from .formats import FORMATS
from .guard import PAGE_HEADERS, Guard
from .problem import Problem, problem_of
from .slots import Slot, Slots

__all__ = ["Limits", "Question", "Site", "Target"]

_PAGE = Path(__file__).parent / "page"
_OPENAI = "/v1/"
#: How long the provider's status is waited for, in seconds; the answer begins then.
_STATUS_WAIT_S = 10.0
#: What needs no token: it tells nothing, and the page has to come before its token.
_OPEN = frozenset({"/", "/style.css", "/app.js", "/healthz"})
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """A provider that visitors may ask.

    Attributes:
        name: Its name on the page, and before the slash in OpenAI's `model`.
        model: Its model where the visitor names none.
        arguments: How `stream_sync` reaches it: `provider`, and what else it needs.
        fake: Whether it is the built-in one.
    """

    name: str
    model: str
    arguments: Mapping[str, Any] = dataclasses.field(repr=False)
    fake: bool = False


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one visitor, and all of them, may ask for.

    Attributes:
        max_streams: How many answers may run at once.
        max_streams_per_client: How many of them for one address.
        max_prompt_chars: The longest question, conversation included, in characters of text.
        max_request_bytes: The largest request body.
    """

    max_streams: int = 32
    max_streams_per_client: int = 8
    max_prompt_chars: int = 32_000
    max_request_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{field.name} must be at least 1, not {value!r}")


class Question(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /stream`, or the query of `GET /stream`.

    Attributes:
        prompt: The question.
        provider: Who is asked; the first of `/api/providers` if nobody is named.
        model: The model, else the provider's default.
        system: Instructions that stand above the question.
        max_tokens: The most tokens that the answer may have.
        temperature: Sampling temperature.
        format: How the answer is told; see `sse_response`.
    """

    prompt: str
    provider: Optional[str] = None
    model: Optional[str] = None
    system: Optional[str] = None
    max_tokens: Optional[int] = None
    temperature: Optional[float] = None
    format: str = "tokens"


class _RefusedError(Exception):
    """A request is answered with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


class Site:
    """The reference application.

    Args:
        targets: Who can be asked; the first is asked where the visitor names nobody.
        guard: Who may ask.
        limits: How much.
        heartbeat_s: How long nothing may be sent, in seconds.

    Attributes:
        app: The Flask application, for any WSGI server.
        limits: As above.
        slots: The streams that run.

    Raises:
        ConfigurationError: There is nobody to ask.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        guard: Guard | None = None,
        limits: Limits | None = None,
        heartbeat_s: float = 2.0,
    ) -> None:
        if not targets:
            raise ConfigurationError("a site needs at least one provider")
        self._targets = {target.name: target for target in targets}
        self._first = targets[0]
        self._guard = guard or Guard()
        self.limits = limits or Limits()
        self._heartbeat_s = heartbeat_s
        self.slots = Slots(self.limits.max_streams, self.limits.max_streams_per_client)
        self.app = app = Flask(__name__, static_folder=None)
        app.url_map.strict_slashes = False
        app.config["MAX_CONTENT_LENGTH"] = self.limits.max_request_bytes
        app.before_request(self._let_in)
        app.after_request(self._dress)
        app.register_error_handler(_RefusedError, lambda error: _answer(error.problem))
        app.register_error_handler(HTTPException, _http_error)
        app.register_error_handler(500, _failed)
        app.add_url_rule("/", "page", lambda: _page("index.html"))
        for name in ("style.css", "app.js"):
            app.add_url_rule(f"/{name}", name, partial(_page, name))
        app.add_url_rule("/healthz", view_func=_health)
        app.add_url_rule("/api/providers", view_func=self._providers)
        app.add_url_rule("/stream", "ask", self._ask, methods=["POST"])
        app.add_url_rule("/stream", "ask_by_query", self._ask_by_query, methods=["GET"])
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
            return Response(status=204, headers=_PREFLIGHT)
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
        if "Last-Event-ID" in request.headers:
            # EventSource asks again when an answer has ended, or was cut: it is told to stop,
            # because the question is not to be asked, and paid for, a second time.
            return Response(status=204)
        return self._stream(_convert(Question, request.args.to_dict(), strict=False))

    def _stream(self, question: Question) -> Response:
        """Answer a question in the format that it asks for."""
        if question.format not in FORMATS:
            raise _bad(f"unknown format {question.format!r}; there are: {', '.join(FORMATS)}")
        self._check_length((question.prompt, question.system))
        target = self._targets.get(question.provider or self._first.name)
        if target is None:
            raise _bad(f"unknown provider; there are: {', '.join(self._targets)}")
        given = {
            name: getattr(question, name)
            for name in ("prompt", "system", "max_tokens", "temperature")
            if getattr(question, name) is not None
        }
        slot, stream = self._start(target, question.model, given)
        try:
            response = sse_response(
                stream,
                format=question.format,
                status_wait_s=_STATUS_WAIT_S,
                heartbeat_s=self._heartbeat_s,
            )
        except BaseException:
            slot.release()
            raise
        return _until_closed(response, slot)

    def _complete(self) -> Response:
        """Answer a client of OpenAI's, streaming or not."""
        asked = _read(ChatCompletionsRequest)
        self._check_length(_texts(asked.messages))
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
            body = StreamBody(stream, chunks, heartbeat_s=self._heartbeat_s)
            problem = body.wait_started(_STATUS_WAIT_S)
        except BaseException:
            stream.close()
            slot.release()
            raise
        if problem is not None:
            slot.release()
            return _answer(problem)
        return _until_closed(Response(body, headers=body.headers), slot)

    def _whole(self, stream: TokenStream, model: str) -> Response:
        """Answer with all of it."""
        try:
            stream.text()
        except StreamError as error:
            return _answer(problem_of(error))
        return Response(answer_body(stream.completion, model), content_type="application/json")

    def _start(
        self, target: Target, model: str | None, given: dict[str, Any]
    ) -> tuple[Slot, TokenStream]:
        """Take a place, and ask.

        Raises:
            _RefusedError: There is no place, or the question cannot be asked.
        """
        slot = self.slots.take(request.remote_addr or "")
        if isinstance(slot, Problem):
            raise _RefusedError(slot)
        try:
            stream = stream_sync(**{"model": model or target.model, **given, **target.arguments})
        except ConfigurationError as error:
            slot.release()
            raise _bad(str(error)) from error
        except BaseException:
            slot.release()
            raise
        slot.hold(stream)
        return slot, stream

    def _check_length(self, texts: Iterable[str | None]) -> None:
        """Refuse a question that is too long.

        Raises:
            _RefusedError: It is.
        """
        most = self.limits.max_prompt_chars
        if sum(len(text or "") for text in texts) > most:
            raise _bad(f"The question is longer than {most} characters.", status=413)


def _until_closed(response: Response, slot: Slot) -> Response:
    """Give the slot back when the response has ended, or is dropped."""
    response.call_on_close(weakref.finalize(response, slot.release))
    return response


def _read(type_: type[Any]) -> Any:
    """Read a JSON body.

    A form's content types are refused: every page may send them anywhere without being asked.

    Raises:
        _RefusedError: It is none, or not what the type says.
    """
    if request.mimetype != "application/json":
        raise _bad("The question must be application/json.", status=415)
    try:
        value = msgspec.json.decode(request.get_data())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"The question is not JSON: {error}") from error
    return _convert(type_, value)


def _convert(type_: type[Any], value: Any, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from error


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a conversation; a picture's data is bounded by the request's size."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if not one.startswith("data:"):
                yield one
        elif isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            left += [part for name, part in one.items() if name not in ("data", "file_data")]


def _answer(problem: Problem) -> Response:
    """Answer with a problem, in OpenAI's words to OpenAI's clients."""
    headers = dict(problem.headers)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if request.path.startswith(_OPENAI):
        headers["Content-Type"] = "application/json"
        return Response(error_body(problem), problem.status, headers)
    return Response(problem.body, problem.status, headers)


def _bad(detail: str, *, status: int = 400) -> _RefusedError:
    titles = {400: "Bad Request", 413: "Content Too Large", 415: "Unsupported Media Type"}
    return _RefusedError(
        Problem(
            title=titles[status],
            status=status,
            detail=detail,
            code="invalid_request",
            retryable=False,
        )
    )


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
