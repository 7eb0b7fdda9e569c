"""No key is ever shown: every ending that a stream can have, and every place where it can be seen.

A provider that repeats the key, wherever it likes, is part of each scenario. What it repeats in the
answer itself is its content and stays; everything else is looked through here.
"""

from __future__ import annotations

import base64
import logging
import os
import pickle
import socket
import ssl
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import requests
import trustme

import llm_sse.errors
from llm_sse import (
    RetryPolicy,
    Timeouts,
    TokenStream,
    stream_anthropic,
    stream_gemini,
    stream_openai,
    stream_sync,
)
from llm_sse.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    InvalidOutputError,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamClosed,
    StreamError,
    StreamTimeout,
    TooManyRounds,
    TransportError,
)
from llm_sse.events import Event, Finish, Resumed, Retrying, StreamStart, TextDelta, Unknown
from llm_sse.providers import PROVIDERS
from tests.reliability.proxy import Answer, Proxy, hang, refuse
from tests.wire import Body, Connection, WireServer, head, stream

TWICE = RetryPolicy(max_retries=1, backoff_s=0)
SHORT_S = 0.1


class World:
    """What one scenario happens in.

    Attributes:
        provider: The provider's name.
        secrets: What must not be seen.
        arguments: What `stream_sync` is called with.
    """

    def __init__(self, provider: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.provider = provider
        self.secrets: list[str] = []
        self.arguments: dict[str, Any] = {"provider": provider, "retry": TWICE}
        self.stack = stack
        self.monkeypatch = monkeypatch

    @property
    def echo(self) -> str:
        """All secrets in one text, for a provider that repeats what it was told."""
        return ",".join(self.secrets)

    def secret(self, what: str) -> str:
        """Make up another secret, that is sent to the provider for some purpose."""
        made = f"sk-{what[:3]}-{self.provider[:2]}-Q7vX2mN9pL4kT8wZ"
        self.secrets.append(made)
        return made

    def serve(self, *responses: Body) -> None:
        """Answer with the next of these each time, and be the provider."""
        server = self.stack.enter_context(WireServer(*responses))
        self.arguments["base_url"] = server.url

    def error_body(self, status: int) -> bytes:
        """Return an error in the provider's own shape that repeats the secrets."""
        row = PROVIDERS[self.provider]
        return row.error_body(row.api_error(status, f"Wrong: {self.echo}", code=self.echo))

    def begin(self, *texts: str) -> bytes:
        """Return the beginning of an answer."""
        return self._encoded(StreamStart("m", "r"), *map(TextDelta, texts))

    def answer(self) -> bytes:
        """Return a complete answer."""
        return self._encoded(StreamStart("m", "r"), TextDelta("one"), Finish("stop"))

    def failure(self, status: int) -> bytes:
        """Return an error inside a stream that repeats the secrets."""
        row = PROVIDERS[self.provider]
        encoder = row.encoder(model="m")
        encoder.encode(StreamStart("m", "r"))
        return encoder.error(row.api_error(status, f"Wrong: {self.echo}"))

    def _encoded(self, *events: Event) -> bytes:
        encoder = PROVIDERS[self.provider].encoder(model="m")
        return b"".join(encoder.encode(event) for event in events)


class Outcome:
    """What is left of a stream: all that a program could print or log of it."""

    def __init__(self) -> None:
        self.stream: TokenStream | None = None
        self.events: list[Event] = []
        self.error: StreamError | None = None
        self.by_the_call = False

    def surfaces(self) -> Iterator[tuple[str, str]]:
        """Yield every place with what can be seen there."""
        for event in self.events:
            yield f"the event {type(event).__name__}", repr(event)
        if self.stream is not None:
            yield "repr(stream)", repr(self.stream)
            yield "stream.completion", repr(self.stream.completion)
            yield "stream.metrics", repr(self.stream.metrics)
            yield "stream.request_id", repr(self.stream.request_id)
        error: BaseException | None = self.error
        for link in ("the error", "its cause or context", "the cause's own"):
            if error is None:
                return
            yield from _seen_of(link, error, with_variables=not self.by_the_call)
            error = error.__cause__ or error.__context__


class Question:
    """A call whose arguments cannot be seen in the frame that makes it."""

    def __init__(
        self, arguments: dict[str, Any], ask: Callable[..., TokenStream] = stream_sync
    ) -> None:
        self._arguments = arguments
        self._ask = ask

    def __repr__(self) -> str:
        return "<Question>"

    def ask(self) -> Outcome:
        """Read the stream to its end, and once more if that was none: then it is an error."""
        outcome = Outcome()
        try:
            outcome.stream = self._ask("Hi", **self._arguments)
            for _ in range(2):
                for event in outcome.stream.events():
                    outcome.events.append(event)
        except StreamError as error:
            outcome.error = error
            outcome.by_the_call = outcome.stream is None
        return outcome


def _seen_of(what: str, error: BaseException, *, with_variables: bool) -> Iterator[tuple[str, str]]:
    """Yield what an error shows.

    What a stream ends with has no frames. What the call itself raises has those of the call, whose
    variables are the caller's own arguments, as with any function: there they do not count.
    """
    yield f"str of {what}", str(error)
    yield f"repr of {what}", repr(error)
    yield f"args of {what}", repr(error.args)
    for name in dir(error):
        if not name.startswith("__"):
            yield f".{name} of {what}", repr(getattr(error, name, None))
    if isinstance(error, StreamError):
        pickled = pickle.dumps(error)
        yield f"{what}, pickled", pickled.decode("latin-1")
        yield f"{what}, unpickled", repr(vars(pickle.loads(pickled)))
    told = traceback.TracebackException.from_exception(error, capture_locals=with_variables)
    yield f"the traceback of {what}, with the variables", "".join(told.format())


def _forms_of(secret: str) -> set[str]:
    """Return how a secret can look, and its beginning: half a key is too much, too."""
    encoded = [
        base64.b64encode(text.encode()).decode().rstrip("=")
        for text in (secret, f":{secret}", f"user:{secret}")
    ]
    forms = {secret, secret[:12], quote(secret, safe=""), quote_plus(secret), secret.encode().hex()}
    return {form.casefold() for form in (*forms, *encoded)}


def leaks(world: World, outcome: Outcome, logged: str) -> list[str]:
    """Return the places where something of a secret can be seen."""
    forms = set().union(*map(_forms_of, world.secrets))
    found = []
    for where, text in (*outcome.surfaces(), ("the log or the output", logged)):
        folded = text.casefold()
        at = next((at for form in forms if (at := folded.find(form)) >= 0), None)
        if at is not None:
            found.append(f"{where}: ...{folded[max(0, at - 60) : at + 60]}...")
    return found


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without proxies and certificate bundles."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def world(provider: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world for each provider in turn."""
    with ExitStack() as stack:
        yield World(provider, stack, monkeypatch)


@pytest.fixture
def openai_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world for what is no provider's affair."""
    with ExitStack() as stack:
        yield World("openai", stack, monkeypatch)


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """Return a function that returns all that was logged and printed so far."""
    caplog.set_level(logging.DEBUG)

    def collect() -> str:
        records = [f"{record.getMessage()} {vars(record)!r}" for record in caplog.records]
        return "\n".join([*records, caplog.text, *capfd.readouterr()])

    return collect


# --- the ways that a secret gets in ---


def _as_argument(world: World) -> None:
    world.arguments["api_key"] = world.secret("argument")


def _from_the_environment(world: World) -> None:
    name = PROVIDERS[world.provider].key_env[0]
    world.monkeypatch.setenv(name, world.secret("environment"))


def _in_headers(world: World) -> None:
    world.arguments["api_key"] = world.secret("unused")
    world.arguments["headers"] = {
        "Authorization": f"Bearer {world.secret('bearer')}",
        "x-api-key": world.secret("key"),
        "x-goog-api-key": world.secret("google"),
        "Cookie": f"theme=dark; session={world.secret('session')}; login={world.secret('login')}",
    }


WAYS = {
    "api_key=": _as_argument,
    "the environment": _from_the_environment,
    "headers=": _in_headers,
}


# --- what happens: each prepares the world, and says how the stream ends in it ---


def _a_redirect_with_the_key_in_its_path(world: World) -> None:
    _redirect(world, f"https://other.test/{world.echo}/chat")


def _a_redirect_with_the_key_in_its_query(world: World) -> None:
    _redirect(world, f"/chat?key={world.echo}#{world.echo}")


def _a_redirect_with_the_key_as_its_user(world: World) -> None:
    _redirect(world, f"https://{world.echo}@other.test/")


def _a_redirect_to_no_address(world: World) -> None:
    _redirect(world, f"http://[{world.echo}")


def _a_wrong_argument(world: World) -> None:
    world.arguments["temperature"] = -1


def _a_wrong_session(world: World) -> None:
    world.arguments["session"] = object()


def _a_key_in_the_base_url(world: World) -> None:
    world.arguments["base_url"] = f"https://user:{world.secret('url')}@api.example.test/v1"


def _a_key_in_a_broken_base_url(world: World) -> None:
    world.arguments["base_url"] = f"https://user:{world.secret('url')}@api.example.test:port/"


def _a_key_in_the_query_of_a_base_url(world: World) -> None:
    world.arguments["base_url"] = f"https://api.example.test/v1?key={world.secret('url')}"


def _a_key_that_cannot_be_sent(world: World) -> None:
    world.arguments["api_key"] = world.secret("argument") + "\r\nX-A: b"


def _a_header_that_cannot_be_sent(world: World) -> None:
    value = f"Bearer {world.secret('bearer')}\N{EURO SIGN}"
    world.arguments["headers"] = {**world.arguments.get("headers", {}), "Authorization": value}


def _a_header_name_that_cannot_be_sent(world: World) -> None:
    """Name and value in one text: whoever does that has the key in the name."""
    name = f"Authorization: Bearer {world.secret('name')}"
    world.arguments["headers"] = {name: ""}


def _a_certificate_bundle_that_is_not_there(world: World) -> None:
    world.monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    world.arguments["base_url"] = "https://api.example.test/v1"


def _a_session_whose_hook_raises(world: World) -> None:
    echo = world.echo

    def hook(*_: object, **__: object) -> None:
        raise RuntimeError(f"sent {echo}")

    session = world.stack.enter_context(requests.Session())
    session.hooks["response"].append(hook)
    world.arguments["session"] = session
    world.serve(stream([world.answer()]))


def _a_session_that_raises_for_a_status(world: World) -> None:
    session = world.stack.enter_context(requests.Session())
    session.hooks["response"].append(lambda answer, **_: answer.raise_for_status())
    world.arguments["session"] = session
    world.serve(_status_line(f"HTTP/1.1 503 {world.echo}"))


def _a_server_that_is_not_there(world: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        world.arguments["base_url"] = f"http://127.0.0.1:{unused.getsockname()[1]}"


def _a_name_that_nobody_knows(world: World) -> None:
    world.arguments["base_url"] = "http://nowhere.invalid/v1"


def _a_certificate_that_nobody_knows(world: World) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = WireServer(stream([world.answer()]), context=context)
    world.stack.enter_context(server)
    world.arguments["base_url"] = server.url.replace("http://127.0.0.1", "https://localhost")


def _a_handshake_that_hangs(world: World) -> None:
    silent = world.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    world.arguments["base_url"] = f"https://127.0.0.1:{silent.getsockname()[1]}"
    world.arguments["timeouts"] = Timeouts(connect_s=SHORT_S)


def _no_token_in_time(world: World) -> None:
    _stall(world, b": still there\n\n", Timeouts(first_token_s=SHORT_S))


def _a_stall(world: World) -> None:
    _stall(world, world.begin("one"), Timeouts(idle_s=SHORT_S))


def _an_answer_that_takes_too_long(world: World) -> None:
    _stall(world, world.begin("one"), Timeouts(total_s=SHORT_S))


def _no_answer_at_all(world: World) -> None:
    world.serve(lambda connection: connection.sock.close())


def _a_cut_before_the_first_token(world: World) -> None:
    world.serve(_cut(world, b": still there\n\n"))


def _a_cut_in_the_answer(world: World) -> None:
    world.serve(_cut(world, world.begin("one")))


def _a_cut_in_the_continuation(world: World) -> None:
    world.arguments["retry"] = RetryPolicy(resume=True, max_resumes=2, backoff_s=0)
    world.serve(_cut(world, world.begin("one")), _cut(world, world.begin(" two")))


def _a_chunk_size_that_is_the_key(world: World) -> None:
    def respond(connection: Connection) -> None:
        connection.send(head(framing="chunked") + world.echo.encode() + b"\r\n")

    respond.closes = True  # type: ignore[attr-defined]
    world.serve(respond)


def _an_event_that_is_not_json(world: World) -> None:
    world.serve(stream([b"data: {" + world.echo.encode() + b"\n\n"]))


def _an_event_whose_cut_goes_through_the_key(world: World) -> None:
    """What is shown of an event ends after 200 characters."""
    world.serve(stream([b"data: {" + b"x" * 180 + world.echo.encode() + b"\n\n"]))


def _a_page(world: World) -> None:
    page = f"<html><title>{world.echo}</title>".encode()
    world.serve(stream([page], headers={"Content-Type": f"text/html; {world.echo}"}))


def _a_server_of_another_protocol(world: World) -> None:
    def greet(connection: Connection) -> None:
        connection.send(world.echo.encode() + b"\r\n")
        connection.sock.close()

    world.serve(greet)


def _broken_compression(world: World) -> None:
    coding = {"Content-Encoding": "gzip", "X-Request-Id": world.echo}
    world.serve(stream([world.echo.encode()], headers=coding))


def _a_complete_answer_that_is_read_again(world: World) -> None:
    world.serve(stream([world.answer()], headers={"X-Request-Id": world.echo}))


SCENARIOS: dict[type[StreamError], list[Callable[[World], None]]] = {
    ConfigurationError: [
        _a_redirect_with_the_key_in_its_path,
        _a_redirect_with_the_key_in_its_query,
        _a_redirect_with_the_key_as_its_user,
        _a_redirect_to_no_address,
        _a_wrong_argument,
        _a_wrong_session,
        _a_key_in_the_base_url,
        _a_key_in_a_broken_base_url,
        _a_key_in_the_query_of_a_base_url,
        _a_key_that_cannot_be_sent,
        _a_header_that_cannot_be_sent,
        _a_header_name_that_cannot_be_sent,
        _a_certificate_bundle_that_is_not_there,
    ],
    TransportError: [_a_session_whose_hook_raises, _a_session_that_raises_for_a_status],
    ConnectError: [
        _a_server_that_is_not_there,
        _a_name_that_nobody_knows,
        _a_certificate_that_nobody_knows,
    ],
    StreamTimeout: [
        _a_handshake_that_hangs,
        _no_token_in_time,
        _a_stall,
        _an_answer_that_takes_too_long,
    ],
    ConnectionLost: [
        _no_answer_at_all,
        _a_cut_before_the_first_token,
        _a_cut_in_the_answer,
        _a_cut_in_the_continuation,
        _a_chunk_size_that_is_the_key,
    ],
    ProtocolError: [
        _an_event_that_is_not_json,
        _an_event_whose_cut_goes_through_the_key,
        _a_page,
        _a_server_of_another_protocol,
        _broken_compression,
    ],
    StreamClosed: [_a_complete_answer_that_is_read_again],
}

#: The statuses that stand for a class; each is answered in every form below.
REFUSALS: dict[type[APIError], int] = {
    AuthenticationError: 401,
    InvalidRequestError: 422,
    RateLimitError: 429,
    ServerError: 500,
}


def _in_the_providers_own_shape(world: World, status: int) -> Body:
    return _refused(status, world.error_body(status))


def _as_a_text(world: World, status: int) -> Body:
    return _refused(status, f'{{"error": "no: {world.echo}"}}'.encode())


def _in_a_list_of_details(world: World, status: int) -> Body:
    echo = world.echo
    return _refused(status, f'{{"detail": [{{"msg": "{echo}", "{echo}": ["{echo}"]}}]}}'.encode())


def _as_a_page(world: World, status: int) -> Body:
    return _refused(status, f"<html><a href='/?key={world.echo}'>no</a>".encode())


def _in_the_headers(world: World, status: int) -> Body:
    names = ("X-Request-Id", "WWW-Authenticate", "Retry-After", "Content-Type", "Set-Cookie")
    return _refused(status, b"{}", dict.fromkeys(names, world.echo))


def _in_the_reason_phrase(world: World, status: int) -> Body:
    return _status_line(f"HTTP/1.1 {status} {world.echo}")


def _in_the_stream(world: World, status: int) -> Body:
    return stream([world.failure(status)])


def _in_the_stream_after_content(world: World, status: int) -> Body:
    return stream([world.begin("one") + world.failure(status)])


FORMS: list[Callable[[World, int], Body]] = [
    _in_the_providers_own_shape,
    _as_a_text,
    _in_a_list_of_details,
    _as_a_page,
    _in_the_headers,
    _in_the_reason_phrase,
    _in_the_stream,
    _in_the_stream_after_content,
]


def _redirect(world: World, location: str) -> None:
    world.serve(lambda connection: connection.send(head(307, {"Location": location}, framing="0")))


def _stall(world: World, body: bytes, timeouts: Timeouts) -> None:
    headers = {"X-Request-Id": world.echo}
    world.serve(stream([body], headers=headers, then=Connection.wait_closed))
    world.arguments["timeouts"] = timeouts


def _cut(world: World, body: bytes) -> Body:
    headers = {"X-Request-Id": world.echo}
    return stream([body], headers=headers, then=lambda connection: None)


def _refused(status: int, body: bytes, headers: dict[str, str] | None = None) -> Body:
    answer = head(status, headers, framing=str(len(body))) + body
    return lambda connection: connection.send(answer)


def _status_line(line: str) -> Body:
    answer = f"{line}\r\nContent-Length: 0\r\n\r\n".encode()
    return lambda connection: connection.send(answer)


def _named(thing: Any) -> str:
    """Return a scenario's name in words."""
    return str(thing.__name__).strip("_").replace("_", " ")


class TestTheSearch:
    def test_it_finds_a_key_in_every_form(self, openai_world: World) -> None:
        """What the tests below look for would be found: whole, cut, quoted, encoded."""
        secret = openai_world.secret("found") + "+/"
        openai_world.secrets = [secret]
        for text in (
            f"key={secret}",
            f"the key {secret[:12]}...",
            f"https://host/?key={quote(secret, safe='')}",
            "Basic " + base64.b64encode(f"user:{secret}".encode()).decode(),
        ):
            outcome = Outcome()
            outcome.error = ProtocolError(text)
            assert leaks(openai_world, outcome, "")
            assert leaks(openai_world, Outcome(), text)

    def test_it_finds_a_key_in_a_variable(self, openai_world: World) -> None:
        """A frame of the traceback that has the key is found, also behind another error."""

        def raise_(kept: str) -> None:
            raise ProtocolError("no")

        outcome = Outcome()
        with pytest.raises(ProtocolError) as caught:
            raise_(openai_world.secret("frame"))
        outcome.error = caught.value
        assert leaks(openai_world, outcome, "")
        outcome.error = ProtocolError("behind")
        outcome.error.__context__ = caught.value
        assert leaks(openai_world, outcome, "")

    def test_every_class_has_a_scenario(self) -> None:
        """A new class needs a scenario here; no stream ends in the bases, or for a tool loop."""
        classes = {
            cls
            for cls in vars(llm_sse.errors).values()
            if isinstance(cls, type) and issubclass(cls, StreamError)
        }
        after_the_end = {TooManyRounds, InvalidOutputError}
        assert set(SCENARIOS) | set(REFUSALS) == classes - {StreamError, APIError} - after_the_end


class TestKeys:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(
        ("expected", "happens"),
        [
            pytest.param(expected, happens, id=f"{expected.__name__}: {_named(happens)}")
            for expected, scenarios in SCENARIOS.items()
            for happens in scenarios
        ],
    )
    def test_no_ending_shows_a_key(
        self,
        world: World,
        way: str,
        expected: type[StreamError],
        happens: Callable[[World], None],
        logged: Callable[[], str],
    ) -> None:
        """However a stream ends, neither error nor events nor logs have anything of a key."""
        WAYS[way](world)
        happens(world)
        outcome = Question(world.arguments).ask()
        assert type(outcome.error) is expected
        assert leaks(world, outcome, logged()) == []

    @pytest.mark.parametrize("form", FORMS, ids=_named)
    @pytest.mark.parametrize("expected", REFUSALS, ids=_named)
    def test_no_refusal_shows_a_key(
        self,
        world: World,
        expected: type[APIError],
        form: Callable[[World, int], Body],
        logged: Callable[[], str],
    ) -> None:
        """A provider that repeats the key in its refusal does not get it into the error."""
        _in_headers(world)
        respond = form(world, REFUSALS[expected])
        if "stream" in _named(form) and expected is InvalidRequestError:
            respond = form(world, 400)  # there is no word for 422 in a stream
        world.serve(respond)
        outcome = Question(world.arguments).ask()
        assert type(outcome.error) is expected
        assert leaks(world, outcome, logged()) == []

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(
        "happens",
        [_a_wrong_argument, _a_key_in_the_base_url, _a_key_that_cannot_be_sent],
        ids=_named,
    )
    def test_no_providers_own_function_shows_a_key(
        self,
        world: World,
        way: str,
        happens: Callable[[World], None],
        logged: Callable[[], str],
    ) -> None:
        """stream_openai and its like pass their arguments on, and show them as little."""
        functions = {
            "openai": stream_openai,
            "anthropic": stream_anthropic,
            "gemini": stream_gemini,
        }
        WAYS[way](world)
        happens(world)
        del world.arguments["provider"]
        outcome = Question(world.arguments, functions[world.provider]).ask()
        assert type(outcome.error) is ConfigurationError
        assert leaks(world, outcome, logged()) == []

    @pytest.mark.parametrize("way", WAYS)
    def test_no_event_between_the_attempts_shows_a_key(
        self, world: World, way: str, logged: Callable[[], str]
    ) -> None:
        """Retrying and Resumed tell what went wrong, without the key that the provider repeated."""
        WAYS[way](world)
        world.arguments["retry"] = RetryPolicy(max_retries=1, backoff_s=0, resume=True)
        cut = stream([world.begin("one") + world.failure(500)])
        world.serve(_refused(500, world.error_body(500)), cut, stream([world.answer()]))
        outcome = Question(world.arguments).ask()
        kinds = [type(event) for event in outcome.events]
        assert kinds.count(Retrying) == kinds.count(Resumed) == 1
        assert leaks(world, outcome, logged()) == []

    def test_what_the_provider_says_is_its_own(self, world: World) -> None:
        """The answer is delivered as it came, also where it repeats the key; an error is not."""
        _as_argument(world)
        said = f"Your key is {world.echo}."
        world.serve(stream([world.begin(said) + world.failure(500)]))
        outcome = Question(world.arguments).ask()
        assert TextDelta(said) in outcome.events
        assert isinstance(outcome.error, ServerError)
        assert outcome.error.completion.text == said
        assert world.secrets[0] not in f"{outcome.error!r} {outcome.error.body}"

    def test_what_is_unknown_is_the_providers_own(self) -> None:
        """An event that nobody knows is passed on as it came."""
        key = "sk-unknown-Q7vX2mN9pL4kT8wZ"
        odd = b'data: ["%s"]\n\n' % key.encode()
        end = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'
        with WireServer(stream([odd + end + b"data: [DONE]\n\n"])) as server:
            events = list(stream_sync("Hi", base_url=server.url, api_key=key).events())
        assert Unknown("message", [key]) in events


# --- the proxy's credentials ---


def _connect(answer: Answer) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        proxy = world.stack.enter_context(Proxy(answer=answer))
        _by_proxy(world, f"localhost:{proxy.port}")

    return prepare


def _by_proxy(world: World, address: str, *, scheme: str = "http") -> None:
    user, password = world.secret("user"), world.secret("password")
    world.monkeypatch.setenv("ALL_PROXY", f"{scheme}://{user}:{password}@{address}")
    world.arguments["base_url"] = "https://api.example.test/v1"


def _a_proxy_that_repeats_the_credentials_in_its_refusal(world: World) -> None:
    def answer(client: socket.socket) -> None:
        refuse(407, reason=f"Who is {world.echo}?".encode())(client)

    _connect(answer)(world)


def _a_proxy_that_answers_http_with_the_credentials(world: World) -> None:
    """What it got in Proxy-Authorization, as it came: a page of a proxy shows the request."""

    def answer(client: socket.socket) -> None:
        page = proxy.heads[0]
        line = b"HTTP/1.1 407 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(page)
        client.sendall(line + page)

    proxy = world.stack.enter_context(Proxy(answer=answer))
    _by_proxy(world, f"localhost:{proxy.port}")
    world.arguments["base_url"] = "http://api.example.test/v1"


def _a_proxy_that_is_not_there(world: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        _by_proxy(world, f"127.0.0.1:{unused.getsockname()[1]}")


def _a_proxy_whose_name_nobody_knows(world: World) -> None:
    _by_proxy(world, "nowhere.invalid:3128")


def _a_proxy_that_hangs(world: World) -> None:
    _connect(hang)(world)
    world.arguments["timeouts"] = Timeouts(connect_s=SHORT_S)


def _a_proxy_with_a_port_that_is_none(world: World) -> None:
    _by_proxy(world, "localhost:99999")


def _a_proxy_with_a_port_that_is_no_number(world: World) -> None:
    _by_proxy(world, "localhost:port")


def _a_proxy_without_a_host(world: World) -> None:
    _by_proxy(world, "")


def _a_proxy_of_an_unknown_kind(world: World) -> None:
    _by_proxy(world, "localhost:3128", scheme="ftp")


def _a_proxy_whose_password_is_not_quoted(world: World) -> None:
    """A password with a `#` or a `/` in it, that should have been written as %23 or %2F."""
    password = world.secret("password") + "#/" + world.secret("rest")
    world.monkeypatch.setenv("ALL_PROXY", f"http://user:{password}@localhost:3128")
    world.arguments["base_url"] = "https://api.example.test/v1"


def _a_proxy_in_brackets(world: World) -> None:
    _by_proxy(world, "[localhost:3128")


MISHAPS: list[Callable[[World], None]] = [
    _connect(refuse(407)),
    _connect(refuse(502)),
    _connect(lambda client: None),
    _a_proxy_that_repeats_the_credentials_in_its_refusal,
    _a_proxy_that_answers_http_with_the_credentials,
    _a_proxy_that_is_not_there,
    _a_proxy_whose_name_nobody_knows,
    _a_proxy_that_hangs,
    _a_proxy_with_a_port_that_is_none,
    _a_proxy_with_a_port_that_is_no_number,
    _a_proxy_without_a_host,
    _a_proxy_of_an_unknown_kind,
    _a_proxy_whose_password_is_not_quoted,
    _a_proxy_in_brackets,
]


class TestProxyCredentials:
    @pytest.mark.parametrize("happens", MISHAPS, ids=_named)
    def test_no_mishap_shows_the_proxys_credentials(
        self, openai_world: World, happens: Callable[[World], None], logged: Callable[[], str]
    ) -> None:
        """Whatever is wrong with a proxy, the user and the password of its address are not told."""
        _as_argument(openai_world)
        happens(openai_world)
        outcome = Question(openai_world.arguments).ask()
        assert isinstance(outcome.error, StreamError)
        assert leaks(openai_world, outcome, logged()) == []

    @pytest.mark.parametrize(
        "happens",
        [
            _a_proxy_with_a_port_that_is_none,
            _a_proxy_with_a_port_that_is_no_number,
            _a_proxy_without_a_host,
            _a_proxy_of_an_unknown_kind,
            _a_proxy_whose_password_is_not_quoted,
            _a_proxy_in_brackets,
        ],
        ids=_named,
    )
    def test_an_address_that_is_none_is_a_mistake_of_the_configuration(
        self, openai_world: World, happens: Callable[[World], None]
    ) -> None:
        """A proxy's address that cannot be understood is not repeated; it is said what is wrong."""
        _as_argument(openai_world)
        happens(openai_world)
        error = Question(openai_world.arguments).ask().error
        assert type(error) is ConfigurationError
        assert "proxy" in str(error).lower()
        assert not error.retryable
