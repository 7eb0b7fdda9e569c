"""Event streams that are cut and spoiled at random, through a socket: there is always one ending.

`LLM_SSE_FUZZ_EXAMPLES` says how many examples each test tries; a long run is

    LLM_SSE_FUZZ_EXAMPLES=20000 python -m pytest --timeout 0 tests/reliability/test_fuzz.py

The streams are what the package's own encoders write, and what real servers have sent, where
`LLM_SSE_RECORDINGS` names a folder of recordings.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import event as record
from hypothesis import strategies as st
from msgspec import Struct

from llm_sse import Timeouts, TokenStream, stream_sync
from llm_sse.completion import Accumulator, Completion
from llm_sse.errors import APIError, ConnectionLost, ProtocolError, StreamError
from llm_sse.events import Event, Finish, StreamStart, TextDelta, Usage
from llm_sse.providers import PROVIDERS
from llm_sse.sse import SSEDecoder
from tests.helpers import FORMATS, until
from tests.providers.test_round_trip import (
    anthropic_answers,
    gemini_answers,
    ollama_answers,
    openai_answers,
    responses_answers,
)
from tests.reliability.mutations import Mutation, mutations, with_one_field_wrong
from tests.reliability.pieces import ODD
from tests.sync.bodies import ONCE, producers
from tests.wire import Body, Connection, WireServer, stream

_FOLDER = os.environ.get("LLM_SSE_RECORDINGS")
_FORMATS = {
    "chat": "openai",
    "responses": "openai-responses",
    "messages": "anthropic",
    "generateContent": "gemini",
    "ollama-chat": "ollama",
}

#: A busy machine is no reason to fail, and a stream that hangs is one soon enough.
FUZZ = settings(
    deadline=None,
    derandomize="LLM_SSE_FUZZ_EXAMPLES" not in os.environ,  # a suite needs no luck
    print_blob=True,
    max_examples=int(os.environ.get("LLM_SSE_FUZZ_EXAMPLES", "30")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_HANG_S = 10.0

#: The endings that bytes can have; a clock's would be a hang, any other one our mistake.
ENDINGS = (APIError, ConnectionLost, ProtocolError)


class Wire(Struct, frozen=True):
    """How a body travels.

    Attributes:
        framing: `chunked`, `close` or `length`.
        sizes: The pieces' sizes, over and over.
        cut: Whether the framing's own end never comes.
        line_end: What stands at the end of a line.
    """

    framing: str
    sizes: list[int]
    cut: bool
    line_end: bytes

    def respond(self, body: bytes) -> Body:
        """Return a response with that body."""
        is_json = body.startswith(b"{")  # whose lines do not end in a CR alone
        body = body.replace(b"\n", b"\n" if is_json else self.line_end)
        headers = {"Content-Type": "application/x-ndjson"} if is_json else None
        pieces, sizes, start = [], itertools.cycle(self.sizes), 0
        while start < len(body):
            end = start + next(sizes)
            pieces.append(body[start:end])
            start = end
        if not self.cut:
            return stream(pieces, framing=self.framing, headers=headers)
        framing = str(len(body) + 1) if self.framing == "length" else self.framing
        return stream(pieces, framing=framing, headers=headers, then=_end)


def _end(connection: Connection) -> None:
    """Send nothing more; whoever calls this closes the connection."""


wires = st.builds(
    Wire,
    framing=st.sampled_from(["chunked", "close", "length"]),
    sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=8),
    cut=st.booleans(),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)


class Stage:
    """Responds to each request with what the example at hand has put here."""

    def __init__(self) -> None:
        self.respond: Body | None = None

    def __call__(self, connection: Connection) -> None:
        """Respond."""
        assert self.respond is not None
        self.respond(connection)

    @property
    def closes(self) -> bool:
        """Whether the connection ends with the response."""
        return bool(getattr(self.respond, "closes", False))


class Ended(Struct):
    """What came of a stream.

    Attributes:
        events: What was delivered.
        error: What it ended with, if that was an error.
        completion: What the error, or the stream, says was delivered.
    """

    events: list[Event]
    error: StreamError | None
    completion: Completion


class Server:
    """One server for all examples of a test."""

    def __init__(self, wire: WireServer, stage: Stage) -> None:
        self._url = wire.url
        self._stage = stage

    def play(self, provider: str, respond: Body) -> Ended:
        """Stream one response to its ending; check what every ending must be like."""
        self._stage.respond = respond
        answer = stream_sync(
            "Hi",
            provider=provider,
            model="m",
            base_url=self._url,
            api_key="any",
            retry=ONCE,
            timeouts=Timeouts(first_token_s=_HANG_S, idle_s=_HANG_S),
        )
        ended = _read(answer)
        note(f"{ended.events!r} {ended.error!r}")
        record(type(ended.error).__name__)
        until(lambda: not producers())
        _check(answer, ended)
        return ended


def _read(answer: TokenStream) -> Ended:
    events: list[Event] = []
    try:
        events.extend(answer.events())
    except StreamError as error:
        return Ended(events, error, error.completion)
    return Ended(events, None, answer.completion)


def _check(answer: TokenStream, ended: Ended) -> None:
    """Assert that there is one ending, and that it tells what was delivered."""
    kinds = [type(event) for event in ended.events]
    assert kinds.count(StreamStart) <= 1
    assert kinds.count(Usage) <= 1
    if ended.error is None:
        assert kinds.count(Finish) == 1
        assert kinds[-1] is Finish
    else:
        assert isinstance(ended.error, ENDINGS)
        assert "please report this" not in str(ended.error), "our own mistake"
        assert Finish not in kinds
        with pytest.raises(type(ended.error)) as again:
            next(answer)
        assert again.value is ended.error
    deltas = [event.text for event in ended.events if isinstance(event, TextDelta)]
    assert ended.completion.text == "".join(deltas)
    assert answer.completion == ended.completion
    said = Accumulator(answer.provider)
    for event in ended.events:
        said.add(event)
        msgspec.json.encode(event)
    said.raw_finish_reason = ended.completion.raw_finish_reason
    assert said.completion() == ended.completion


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that does what the example says."""
    stage = Stage()
    with WireServer(stage) as wire:
        yield Server(wire, stage)


ANSWERS: dict[str, st.SearchStrategy[list[Event]]] = {
    "openai": openai_answers(),
    "openai-responses": responses_answers(),
    "anthropic": anthropic_answers(),
    "gemini": gemini_answers(),
    "ollama": ollama_answers(),
}


def _encoded(provider: str, events: list[Event]) -> bytes:
    encoder = PROVIDERS[provider].encoder(model="m")
    return b"".join(map(encoder.encode, events))


BODIES = {
    name: answers.map(functools.partial(_encoded, name)) | st.just(ODD[name])
    for name, answers in ANSWERS.items()
}


def _recorded() -> dict[str, list[bytes]]:
    """Return the bodies that real servers have sent, by format."""
    found: dict[str, list[bytes]] = {name: [] for name in FORMATS}
    for path in sorted(Path(_FOLDER).glob("*/*.json")) if _FOLDER else []:
        expected: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        if expected["api"] in _FORMATS:
            body = (path.parent / expected["body_file"]).read_bytes()
            found[_FORMATS[expected["api"]]].append(body)
    return found


RECORDED = _recorded()


def _spoilt(body: bytes, changes: list[Mutation]) -> bytes:
    for change in changes:
        body = change(body)
    note(repr(body))
    return body


#: To make a failing example small takes longer than a test may.
pytestmark = pytest.mark.timeout(600)
formats = pytest.mark.parametrize("provider", FORMATS)


class TestSpoiltStreams:
    @formats
    @FUZZ
    @given(st.data())
    def test_encoded(self, server: Server, provider: str, data: st.DataObject) -> None:
        """However an answer is spoilt, it has one ending, and what came before it is told."""
        bodies = BODIES[provider]
        body = _spoilt(data.draw(bodies), data.draw(mutations(bodies)))
        server.play(provider, data.draw(wires).respond(body))

    @pytest.mark.skipif(not _FOLDER, reason="LLM_SSE_RECORDINGS names no folder of recordings")
    @formats
    @FUZZ
    @given(st.data())
    def test_recorded(self, server: Server, provider: str, data: st.DataObject) -> None:
        """So has what real servers have sent."""
        bodies = st.sampled_from(RECORDED[provider])
        body = _spoilt(data.draw(bodies), data.draw(mutations(bodies)))
        server.play(provider, data.draw(wires).respond(body))


class TestOneFieldWrong:
    @formats
    def test_in_memory(self, provider: str) -> None:
        """Whatever a field holds, what the decoder makes of it is events and then one ending."""
        for body in with_one_field_wrong(ODD[provider]):
            frames, decoder = SSEDecoder(), PROVIDERS[provider].decoder()
            events: list[Event] = []
            try:
                for sse in frames.feed(body):
                    events.extend(decoder.decode(sse))
                events.extend(decoder.end())
            except ENDINGS:
                pass
            except Exception as error:
                pytest.fail(f"{error!r} of {body!r}")
            else:
                assert type(events[-1]) is Finish


class TestSoundStreams:
    @formats
    @FUZZ
    @given(st.data())
    def test_cut_anew(self, server: Server, provider: str, data: st.DataObject) -> None:
        """However its bytes are cut and framed, an answer arrives as it was sent."""
        events = data.draw(ANSWERS[provider])
        ended = server.play(provider, data.draw(wires).respond(_encoded(provider, events)))
        assert ended.error is None
        assert ended.events == events

    @formats
    @FUZZ
    @given(st.data())
    def test_broken_off(self, server: Server, provider: str, data: st.DataObject) -> None:
        """What arrives of an answer that breaks off is its beginning, and is not called whole."""
        events = data.draw(ANSWERS[provider])
        body = _encoded(provider, events)
        body = body[: data.draw(st.integers(0, len(body) - 1))]
        ended = server.play(provider, data.draw(wires).respond(body))
        said = [event for event in events if isinstance(event, (TextDelta, Finish))]
        got = [event for event in ended.events if isinstance(event, (TextDelta, Finish))]
        assert got == said[: len(got)]
        assert ended.error is None or isinstance(ended.error, ConnectionLost)
