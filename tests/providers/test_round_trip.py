"""What an encoder writes, its decoder reads: `decode(encode(events)) == events`.

The strategies make the sequences that a decoder can emit, each with what its format can express.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_sse.errors import APIError
from llm_sse.events import (
    Citation,
    Event,
    Finish,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Retrying,
    StreamStart,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Unknown,
    Usage,
)
from llm_sse.providers import PROVIDERS
from llm_sse.providers.calls import ToolCallBuilder
from llm_sse.sse import SSEDecoder
from tests.helpers import FORMATS

AWKWARD = [
    "\n",
    "\r\n",
    "\r",
    "\0",
    "\u2028",
    "\ufeff",
    "data: x\n\n",
    "[DONE]",
    '{"a": 1}',
    '"',
    "\\",
]
AWKWARD += ["\\u0000", "null", "<b>&amp;", "🏳️‍🌈", "e\u0301", "\x85", " ", "\t"]
CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)

characters = st.characters(exclude_categories=["Cs"])
any_text = st.text(characters, max_size=20) | st.sampled_from(AWKWARD)
text = any_text.filter(bool)
maybe_text = st.none() | text
words = st.text(st.sampled_from("abcdefghij_"), min_size=1, max_size=9).map(lambda word: f"x{word}")
counts = st.integers(0, 2**53)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | any_text
scalars |= st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(any_text, values, max_size=4)
starts = st.builds(StreamStart, text, text)
numbers = st.floats(-1e6, 0, allow_nan=False)
alternatives = st.builds(TokenLogprob, any_text, numbers, st.none() | st.binary(max_size=4))
tokens = st.builds(
    lambda token, top: msgspec.structs.replace(token, top=tuple(top)),
    alternatives,
    st.lists(alternatives, max_size=2),
)
likely = st.lists(tokens, min_size=1, max_size=3).map(lambda some: Logprobs(tuple(some)))


def without_bytes(event: Logprobs) -> Logprobs:
    """Leave out the bytes, which Gemini does not tell."""

    def plain(token: TokenLogprob) -> TokenLogprob:
        return TokenLogprob(token.token, token.logprob, top=tuple(map(plain, token.top)))

    return Logprobs(tuple(map(plain, event.tokens)))


def citations(*names: str, strings: st.SearchStrategy[str], **fields: Any) -> Any:
    """Make citations whose `raw` has address, title and passage under these names."""

    def build(url: str, title: str, passage: str) -> Citation:
        raw = {**dict(zip(names, (url, title, passage), strict=True)), **fields}
        return Citation(url, title, passage, raw)

    return st.builds(build, strings, strings, strings)


def wrapped(name: str, citation: Citation) -> Citation:
    """Put the `raw` of a citation one level down."""
    return msgspec.structs.replace(citation, raw={name: citation.raw})


@st.composite
def pieces(draw: st.DrawFn, whole: str) -> list[str]:
    """Cut a text into pieces, none of them empty."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=4)))
    bounds = [0, *(cut for cut in cuts if cut < len(whole)), len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(bounds) if a < b]


@st.composite
def argument_texts(draw: st.DrawFn) -> str:
    """Make the JSON text of a call's arguments: none, whole, indented, cut, or no JSON at all."""
    encoded = msgspec.json.encode(draw(objects))
    indented = msgspec.json.format(encoded, indent=draw(st.integers(0, 2))).decode()
    cut = indented[: draw(st.integers(0, len(indented)))]
    return draw(st.sampled_from(["", indented, cut]) | any_text)


@st.composite
def fragments(draw: st.DrawFn, index: int, *, begin_with_text: bool) -> list[Event]:
    """Make the fragments of one call, and the call itself as the last one."""
    id_, name, whole = (
        draw(maybe_text.filter(lambda id_: id_ != "null")),
        draw(text),
        draw(argument_texts()),
    )
    cut = draw(pieces(whole))
    first = cut.pop(0) if begin_with_text and cut and draw(st.booleans()) else ""
    builder = ToolCallBuilder(index, id_, name)
    builder.pieces.append(whole)
    deltas = [ToolCallDelta(index, arguments=piece) for piece in cut]
    return [ToolCallDelta(index, id_, name, first), *deltas, builder.build()]


@st.composite
def interleaved(draw: st.DrawFn, groups: list[list[Event]]) -> list[Event]:
    """Mix several sequences, each of which keeps its order; all begin in the given order."""
    mixed: list[Event] = []
    waiting, running = list(groups), []
    while waiting or running:
        at = draw(st.integers(0, len(running)))
        if waiting and at == len(running):
            running.append(list(waiting.pop(0)))
        group = running[min(at, len(running) - 1)]
        mixed.append(group.pop(0))
        running = [group for group in running if group]
    return mixed


def finishes(table: dict[str, Any], *, called: bool, message: st.SearchStrategy[Any]) -> Any:
    """Make a finish with a known or an unheard-of word."""
    known = st.sampled_from(sorted(table)) | words

    def build(word: str, explanation: str | None) -> Finish:
        reason = table.get(word, "other")
        return Finish("tool_calls" if called and reason == "stop" else reason, word, explanation)

    return st.builds(build, known, message)


@st.composite
def openai_answers(draw: st.DrawFn) -> list[Event]:
    """Make an answer in Chat Completions: fragments anywhere, whole calls before the end."""
    opaque = st.builds(ReasoningDelta, any_text, maybe_text, maybe_text)
    cited = citations("url", "title", "content", strings=text, start_index=0)
    part = st.builds(lambda kind, data: {**data, "type": kind, "text": None}, words, objects)
    content: st.SearchStrategy[Event] = st.one_of(
        st.builds(TextDelta, text),
        st.builds(ReasoningDelta, text),
        opaque.filter(lambda event: event != ReasoningDelta()),
        st.builds(RefusalDelta, text),
        cited,
        cited.map(lambda citation: wrapped("url_citation", citation)),
        likely,
        part.map(lambda data: Unknown(data["type"], data)),
        st.integers(0, 9).map(lambda data: Unknown("content", data)),
        st.lists(st.integers(), max_size=2).map(lambda data: Unknown("message", data)),
    )
    calls = [
        draw(fragments(index, begin_with_text=True)) for index in range(draw(st.integers(0, 3)))
    ]
    whole = [msgspec.structs.replace(call.pop(), signature=draw(maybe_text)) for call in calls]
    body = draw(interleaved([[event] for event in draw(st.lists(content, max_size=8))] + calls))
    table = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
    table |= {"tool_calls": "tool_calls", "eos": "stop", "error": "error"}
    finish = draw(finishes(table, called=bool(calls), message=st.none()))
    return [draw(starts), *body, *whole, *draw(openai_usage()), finish]


def whole_prompt(asked: int, cached: int | None) -> int:
    """Count the prompt: more cached tokens than it has are not among its own."""
    return asked + cached if cached is not None and cached > asked else asked


@st.composite
def openai_usage(draw: st.DrawFn) -> list[Usage]:
    """Make no usage, or one whose figures are those of its `raw`."""
    if draw(st.booleans()):
        return []
    asked, said, cached, thought = draw(
        st.tuples(counts, counts, st.none() | counts, st.none() | counts)
    )
    raw: dict[str, Any] = {"prompt_tokens": asked, "completion_tokens": said, "cost": draw(values)}
    if cached is not None:
        raw["prompt_tokens_details"] = {"cached_tokens": cached, "audio_tokens": None}
    if thought is not None:
        raw["completion_tokens_details"] = {"reasoning_tokens": thought}
    beside = thought if thought and draw(st.booleans()) else 0
    raw["total_tokens"] = asked + said + beside
    return [Usage(whole_prompt(asked, cached), said + beside, cached, thought, raw)]


@st.composite
def responses_answers(draw: st.DrawFn) -> list[Event]:
    """Make an answer in Responses: several open calls between texts, sealed thoughts."""
    thoughts = st.builds(
        lambda text, signature, redacted, id_: ReasoningDelta(
            text, signature, redacted, id_ if redacted else None
        ),
        any_text,
        maybe_text,
        maybe_text,
        text,
    )
    cited = citations("url", "title", "content", strings=text, type="url_citation")
    other = st.builds(lambda kind, data: {**data, "type": kind}, words, objects)
    content: st.SearchStrategy[Event] = st.one_of(
        st.builds(TextDelta, text),
        st.builds(ReasoningDelta, text),
        thoughts.filter(lambda event: event != ReasoningDelta()),
        st.builds(RefusalDelta, text),
        cited,
        cited.map(lambda citation: wrapped("url_citation", citation)),
        likely,
        other.map(lambda data: Unknown(data["type"], data)),
    )
    calls = [
        [named(event, index) for event in draw(fragments(index, begin_with_text=False))]
        for index in range(draw(st.integers(0, 3)))
    ]
    body = draw(interleaved([[event] for event in draw(st.lists(content, max_size=8))] + calls))
    finish = draw(
        st.sampled_from(
            [
                Finish("tool_calls" if calls else "stop", "completed"),
                Finish("length", "incomplete", "max_output_tokens"),
                Finish("content_filter", "incomplete", "content_filter"),
                Finish("other", "incomplete", "steered"),
                Finish("other", "incomplete"),
            ]
        )
    )
    return [draw(starts), *body, *draw(responses_usage()), finish]


def named(event: Event, index: int) -> Event:
    """Give a call an identifier that no other call has: in Responses each has one."""
    if isinstance(event, ToolCall) or (isinstance(event, ToolCallDelta) and event.name):
        return msgspec.structs.replace(event, id=f"{event.id}{index}")
    return event


@st.composite
def responses_usage(draw: st.DrawFn) -> list[Usage]:
    """Make no usage, or one whose figures are those of its `raw`."""
    if draw(st.booleans()):
        return []
    asked, said = draw(counts), draw(counts)
    cached, thought = draw(st.tuples(*[st.none() | counts] * 2))
    raw: dict[str, Any] = {"input_tokens": asked, "output_tokens": said, "cost": draw(values)}
    raw |= {"input_tokens_details": {"cached_tokens": cached}}
    if thought is not None:
        raw["output_tokens_details"] = {"reasoning_tokens": thought, "more": None}
    return [Usage(whole_prompt(asked, cached), said, cached, thought, raw)]


@st.composite
def anthropic_answers(draw: st.DrawFn) -> list[Event]:
    """Make an answer in Messages: one block after the other, each call complete at its end."""
    cited = citations("url", "title", "cited_text", strings=any_text, type="web")
    thoughts = st.builds(ReasoningDelta, any_text, maybe_text)
    other = st.builds(lambda kind, data: {**data, "type": kind, "error": None}, words, objects)
    other_delta = st.builds(
        lambda kind, data: {"type": "content_block_delta", "delta": {**data, "type": kind}},
        words,
        objects,
    )
    content: st.SearchStrategy[Event] = st.one_of(
        st.builds(TextDelta, text),
        thoughts.filter(lambda event: event != ReasoningDelta()),
        st.builds(lambda data: ReasoningDelta(redacted=data), text),
        cited,
        other.map(lambda data: Unknown(data["type"], data)),
        other_delta.map(lambda data: Unknown(data["delta"]["type"], data)),
    )
    body: list[Event] = []
    called = 0
    for is_call in draw(st.lists(st.booleans(), max_size=6)):
        if is_call:
            body += draw(fragments(called, begin_with_text=False))
            called += 1
        else:
            body += draw(st.lists(content, max_size=4))
    table = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
    table |= {"refusal": "content_filter", "pause_turn": "pause"}
    finish = draw(finishes(table, called=called > 0, message=st.none() | any_text))
    return [draw(starts), *body, draw(anthropic_usage()), finish]


@st.composite
def anthropic_usage(draw: st.DrawFn) -> Usage:
    """Make a usage whose figures are those of its `raw`."""
    asked, said = draw(counts), draw(counts)
    read, written, thought = draw(st.tuples(*[st.none() | counts] * 3))
    raw: dict[str, Any] = {"input_tokens": asked, "output_tokens": said, "more": draw(values)}
    raw |= {"cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    if thought is not None:
        raw["output_tokens_details"] = {"thinking_tokens": thought}
    return Usage(asked + (read or 0) + (written or 0), said, read, thought, raw, written)


@st.composite
def gemini_answers(draw: st.DrawFn) -> list[Event]:
    """Make an answer in streamGenerateContent: parts in any order, calls whole, sources once."""
    thoughts = st.builds(ReasoningDelta, any_text, maybe_text)
    calls = st.builds(
        lambda id_, name, arguments, signature: ToolCall(
            id_, name, arguments, msgspec.json.encode(arguments).decode(), signature=signature
        ),
        maybe_text,
        text,
        objects,
        maybe_text,
    )
    cited = citations("uri", "title", "text", strings=any_text)
    other = st.builds(lambda kind, data: Unknown(kind, {kind: data}), words, objects)
    content: st.SearchStrategy[Event] = st.one_of(
        st.builds(TextDelta, text),
        thoughts.filter(lambda event: event != ReasoningDelta()),
        calls,
        cited,
        cited.map(lambda citation: wrapped("web", citation)),
        likely.map(without_bytes),
        other,
    )
    body = draw(st.lists(content, max_size=10))
    kept = [event for at, event in enumerate(body) if _is_first(event, body[:at])]
    called = any(isinstance(event, ToolCall) for event in kept)
    table = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}
    table |= {"CONTINUATION": "pause", "OTHER": "error"}
    finish = draw(finishes(table, called=called, message=maybe_text))
    return [draw(starts), *kept, *draw(gemini_usage()), finish]


def _is_first(event: Event, earlier: list[Event]) -> bool:
    return not isinstance(event, Citation) or event not in earlier


@st.composite
def gemini_usage(draw: st.DrawFn) -> list[Usage]:
    """Make no usage, or one whose figures are those of its `raw`."""
    names = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount")
    names += ("thoughtsTokenCount", "cachedContentTokenCount")
    raw = draw(st.dictionaries(st.sampled_from(names), counts))
    if not raw:
        return []

    def total(*of: str) -> int | None:
        return (
            sum(raw[name] for name in of if name in raw)
            if any(name in raw for name in of)
            else None
        )

    figures = (total(*names[:2]), total(*names[2:4]), total(names[4]), total(names[3]))
    return [Usage(*figures, {**raw, "trafficType": draw(values)})]


@st.composite
def ollama_answers(draw: st.DrawFn) -> list[Event]:
    """Make an answer of Ollama: texts, whole calls, and lines that are nobody's."""
    foreign = st.dictionaries(words, values, max_size=3)
    content: st.SearchStrategy[list[Event]] = st.one_of(
        st.builds(TextDelta, text).map(lambda event: [event]),
        st.builds(ReasoningDelta, text).map(lambda event: [event]),
        likely.map(lambda event: [event]),
        (foreign | st.lists(st.integers())).map(lambda data: [Unknown("message", data)]),
        st.builds(whole_call, maybe_text, text, objects.map(to_json) | any_text.filter(no_object)),
    )
    body: list[Event] = []
    called = 0
    for group in draw(st.lists(content, max_size=8)):
        for event in group:
            if isinstance(event, ToolCallDelta):
                event = msgspec.structs.replace(event, index=called)  # noqa: PLW2901
                called += 1
            body.append(event)
    table = {"stop": "stop", "length": "length", "load": "error"}
    finish = draw(finishes(table, called=called > 0, message=st.none()))
    if not called and draw(st.booleans()):
        finish = Finish("other")
    start = StreamStart(draw(text))
    return [start, *body, *draw(ollama_usage()), finish]


def to_json(value: Any) -> str:
    """Return a value as compact JSON."""
    return msgspec.json.encode(value).decode()


def no_object(arguments: str) -> bool:
    """Whether a text is something, but no JSON object: so it is sent as the text that it is."""
    builder = ToolCallBuilder(0, None, "")
    builder.pieces.append(arguments)
    return bool(arguments.strip()) and builder.build().error is not None


def whole_call(id_: str | None, name: str, arguments: str) -> list[Event]:
    """Make a call that came in one piece."""
    builder = ToolCallBuilder(0, id_, name)
    builder.pieces.append(arguments)
    return [ToolCallDelta(0, id_, name, arguments), builder.build()]


@st.composite
def ollama_usage(draw: st.DrawFn) -> list[Usage]:
    """Make no usage, or one whose figures are those of its `raw`."""
    names = ("prompt_eval_count", "eval_count", "total_duration", "eval_duration")
    raw = draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, counts)))
    return [Usage(raw.get(names[0]), raw.get(names[1]), raw=raw)] if raw else []


#: Ollama has no words for signatures and sources, and counts nothing in detail.
DETAILED = [name for name in FORMATS if name != "ollama"]


def there_and_back(provider: str, events: list[Event], cuts: list[int]) -> list[Event]:
    """Encode events, cut the bytes, decode them."""
    encoder = PROVIDERS[provider].encoder(model="m")
    body = b"".join(map(encoder.encode, events))
    frames, decoder = PROVIDERS[provider].frames(), PROVIDERS[provider].decoder()
    got: list[Event] = []
    sizes = itertools.cycle(cuts)
    while body:
        size = next(sizes)
        for sse in frames.feed(body[:size]):
            got += decoder.decode(sse)
        body = body[size:]
    assert frames.end(dispatch_unfinished=True) == []
    assert frames.ignored == b""
    return [*got, *decoder.end()]


#: A busy machine is no reason to fail.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class TestRoundTrip:
    @given(openai_answers(), CUTS)
    @UNHURRIED
    def test_chat_completions(self, events: list[Event], cuts: list[int]) -> None:
        """Whatever Chat Completions can say arrives as it was said."""
        assert there_and_back("openai", events, cuts) == events

    @given(responses_answers(), CUTS)
    @UNHURRIED
    def test_responses(self, events: list[Event], cuts: list[int]) -> None:
        """Whatever Responses can say arrives as it was said."""
        assert there_and_back("openai-responses", events, cuts) == events

    @given(anthropic_answers(), CUTS)
    @UNHURRIED
    def test_messages(self, events: list[Event], cuts: list[int]) -> None:
        """Whatever Messages can say arrives as it was said."""
        assert there_and_back("anthropic", events, cuts) == events

    @given(gemini_answers(), CUTS)
    @UNHURRIED
    def test_generate_content(self, events: list[Event], cuts: list[int]) -> None:
        """Whatever streamGenerateContent can say arrives as it was said."""
        assert there_and_back("gemini", events, cuts) == events

    @given(ollama_answers(), CUTS)
    @UNHURRIED
    def test_ollama(self, events: list[Event], cuts: list[int]) -> None:
        """Whatever Ollama can say arrives as it was said."""
        assert there_and_back("ollama", events, cuts) == events

    @pytest.mark.parametrize(
        "event", [*map(TextDelta, AWKWARD), *map(ReasoningDelta, AWKWARD)], ids=str
    )
    def test_one_event(self, provider: str, event: Event) -> None:
        """What every format can say arrives alike from each of them."""
        got = there_and_back(provider, [StreamStart("m"), event, event, Finish("stop")], [1])
        assert got[1:3] == [event, event]

    @pytest.mark.parametrize("text", ["Hm", ""])
    @pytest.mark.parametrize("name", DETAILED)
    def test_signed_reasoning(self, name: str, text: str) -> None:
        """A signature arrives with its reasoning, or alone."""
        event = ReasoningDelta(text, "sig")
        got = there_and_back(name, [StreamStart("m"), event, event, Finish("stop")], [1])
        assert got[1:3] == [event, event]

    @pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic"])
    def test_encrypted_reasoning(self, name: str) -> None:
        """Reasoning that only its provider can read arrives as it was sent."""
        event = ReasoningDelta(redacted="xyz", id="rs_7" if name == "openai-responses" else None)
        assert there_and_back(name, [StreamStart("m"), event, Finish("stop")], [1])[1] == event

    @pytest.mark.parametrize("event", [Retrying(1, 0.5, "e"), Resumed(1, 2, "e")], ids=str)
    def test_what_no_provider_says(self, provider: str, event: Event) -> None:
        """Events of the client's own have no bytes."""
        assert PROVIDERS[provider].encoder(model="m").encode(event) == b""

    @pytest.mark.parametrize(
        ("provider", "usage"),
        [
            *itertools.product(FORMATS, [Usage(7, 5), Usage(0, 0)]),
            *itertools.product(
                DETAILED,
                [Usage(7, 5, 3), Usage(7, 5, None, 2), Usage(7, 5, 3, 2), Usage(7, 5, 0, 0)],
            ),
            ("anthropic", Usage(7, 5, 3, cache_creation_tokens=2)),
        ],
        ids=str,
    )
    def test_usage_without_a_providers_object(self, provider: str, usage: Usage) -> None:
        """The normalised figures alone are enough to write the provider's own."""
        (got,) = (
            event
            for event in there_and_back(provider, [StreamStart("m"), usage, Finish("stop")], [99])
            if isinstance(event, Usage)
        )
        assert msgspec.structs.replace(got, raw=None) == usage

    @pytest.mark.parametrize("provider", DETAILED)
    def test_a_citation_without_a_providers_object(self, provider: str) -> None:
        """The normalised source alone is enough to write the provider's own."""
        said = [StreamStart("m"), Citation("u", "t"), Finish("stop")]
        got = there_and_back(provider, said, [99])[1]
        assert isinstance(got, Citation)
        assert (got.url, got.title) == ("u", "t")

    @pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
    def test_a_finish_without_a_providers_word(self, provider: str, reason: Any) -> None:
        """Our word for the end alone is enough to find the provider's."""
        call = ToolCall("a", "f", {}, "{}")
        called = [call] if reason == "tool_calls" else []
        got = there_and_back(provider, [StreamStart("m"), *called, Finish(reason)], [99])
        assert isinstance(got[-1], Finish)
        assert got[-1].reason == reason

    @pytest.mark.parametrize(
        "calls",
        [
            [ToolCall("a", "f", {"x": 1}, '{"x":1}')],
            [ToolCall("a", "f", {}, "{}"), ToolCall("b", "f", {"x": 1}, '{"x":1}')],
        ],
        ids=len,
    )
    def test_calls_without_fragments(self, provider: str, calls: list[Event]) -> None:
        """A call that was not announced goes out whole."""
        got = there_and_back(provider, [StreamStart("m"), *calls, Finish("stop")], [99])
        assert [event for event in got if isinstance(event, ToolCall)] == calls

    @pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503, 529])
    def test_errors(self, provider: str, status: int) -> None:
        """An error inside the stream arrives as the class and with the message that were sent."""
        row = PROVIDERS[provider]
        sent = row.api_error(status, "so\nit is")
        (sse,) = row.frames().feed(row.encoder(model="m").error(sent))
        decoder = row.decoder()
        with pytest.raises(APIError) as caught:
            list(decoder.decode(sse))
            list(decoder.end())
        assert type(caught.value) is type(sent)
        assert caught.value.detail == "so\nit is"

    def test_usage_that_was_not_asked_for(self) -> None:
        """Chat Completions tells the usage only to those who ask."""
        encoder = PROVIDERS["openai"].encoder(model="m", usage=False)
        said = [encoder.encode(event) for event in (Usage(1, 2), Finish("stop"))]
        assert b"prompt_tokens" not in b"".join(said)

    def test_another_choice(self) -> None:
        """A choice that is not the stream goes out as a choice."""
        encoder = PROVIDERS["openai"].encoder(model="m")
        (sse,) = SSEDecoder().feed(encoder.encode(Unknown("choice", {"index": 1})))
        (_, got) = PROVIDERS["openai"].decoder().decode(sse)
        assert isinstance(got, Unknown)
        assert (got.kind, got.data["index"]) == ("choice", 1)

    def test_an_unknown_thing_without_a_type(self) -> None:
        """Messages has only events with a type, so others are wrapped."""
        encoder = PROVIDERS["anthropic"].encoder(model="m")
        (sse,) = SSEDecoder().feed(encoder.encode(Unknown("odd", [1])))
        assert list(PROVIDERS["anthropic"].decoder().decode(sse)) == [
            Unknown("odd", {"type": "odd", "data": [1]})
        ]
