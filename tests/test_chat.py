"""What is asked: every way to ask it, and every way to get it wrong."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from llm_sse.chat import (
    ChatRequest,
    HTTPRequest,
    Message,
    Tool,
    check_base_url,
    check_header,
    json_arguments,
    make_chat,
    make_message,
    own_reasoning,
    redact_url,
)
from llm_sse.errors import ConfigurationError

SECRET = "sk-very-secret"
FUNCTION = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def ask(prompt: Any = "Hi", messages: Any = None, **arguments: Any) -> ChatRequest:
    """Make a chat of a prompt, with a model."""
    return make_chat(prompt, messages, **{"model": "m", **arguments})


def looping() -> dict[str, Any]:
    """Make an object that holds itself."""
    loop: dict[str, Any] = {}
    loop["self"] = loop
    return loop


class TestMakeChat:
    def test_prompt_alone(self) -> None:
        """A prompt is one user turn; nothing else is set."""
        assert ask() == ChatRequest(model="m", messages=(Message(role="user", content="Hi"),))

    def test_everything(self) -> None:
        """Every argument finds its place."""
        tool = Tool("weather")
        assert ask(
            system="Be brief.",
            max_tokens=5,
            temperature=1,
            top_p=0.5,
            stop=["a", "b"],
            tools=[tool],
            tool_choice="auto",
            extra_body={"seed": 1},
        ) == ChatRequest(
            model="m",
            messages=(Message(role="user", content="Hi"),),
            system="Be brief.",
            max_tokens=5,
            temperature=1.0,
            top_p=0.5,
            stop=("a", "b"),
            tools=(tool,),
            tool_choice="auto",
            extra_body={"seed": 1},
        )

    def test_prompt_is_the_last_turn(self) -> None:
        """With both, the prompt follows the messages."""
        chat = ask("And now?", [{"role": "user", "content": "Hi"}, Message(role="assistant")])
        assert [(turn.role, turn.content) for turn in chat.messages] == [
            ("user", "Hi"),
            ("assistant", None),
            ("user", "And now?"),
        ]

    def test_message_shapes(self) -> None:
        """Messages may be dicts, any mapping, or `Message`s, and carry all their fields."""
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        parts = [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]
        chat = ask(
            None,
            (
                MappingProxyType({"role": "user", "content": parts, "name": "Ann"}),
                {"role": "assistant", "tool_calls": [call]},
                Message(role="tool", content="42", tool_call_id="c"),
            ),
        )
        assert chat.messages == (
            Message(role="user", content=parts, name="Ann"),
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", content="42", tool_call_id="c"),
        )

    def test_fields_without_a_value_are_no_fields(self) -> None:
        """An SDK's own message can be passed back although it is full of empty fields."""
        echoed = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []}
        assert ask("?", [echoed]).messages[0] == Message(role="assistant", content="Hi")

    def test_a_field_that_would_be_lost(self) -> None:
        """A message's field that nobody would send is refused, above all a misspelt one."""
        with pytest.raises(ConfigurationError, match=r"wrong message: .*'contents'"):
            ask(None, [{"role": "user", "contents": "Hi"}])

    def test_system_messages_merge(self) -> None:
        """The system argument, system and developer messages are one text, in that order."""
        chat = ask(
            "Hi",
            [
                {"role": "system", "content": "B"},
                {"role": "user", "content": "x"},
                {
                    "role": "developer",
                    "content": [{"type": "text", "text": "C"}, {"type": "text", "text": "D"}],
                },
            ],
            system="A",
        )
        assert chat.system == "A\n\nB\n\nCD"
        assert [turn.role for turn in chat.messages] == ["user", "user"]

    def test_empty_system(self) -> None:
        """System texts that are empty, or not there, are none."""
        empty = [{"role": "system"}, {"role": "system", "content": ""}]
        assert ask(system="").system is None
        assert ask("Hi", empty).system is None
        assert ask("Hi", empty, system="A").system == "A"

    @pytest.mark.parametrize(
        "part", [{"type": "image_url", "image_url": {}}, {"type": "text"}, {"text": "a"}]
    )
    def test_system_is_text(self, part: dict[str, Any]) -> None:
        """A system message that is no text is refused, not dropped."""
        with pytest.raises(ConfigurationError, match="a system message can hold text only"):
            ask("Hi", [{"role": "system", "content": [part]}])

    def test_stop(self) -> None:
        """One stop text is a list of one."""
        assert ask(stop="END").stop == ("END",)
        assert ask(stop=()).stop == ()
        assert ask(stop=None).stop == ()

    def test_tools(self) -> None:
        """A `Tool` and OpenAI's shape are neutral tools; a field that is None has its default."""
        shape = {"type": "function", "function": FUNCTION}
        bare = {"type": "function", "function": {"name": "f", "description": None}}
        assert ask(tools=[Tool("a"), shape, bare]).tools == (
            Tool("a"),
            Tool("weather", "Tells the weather.", FUNCTION["parameters"]),  # type: ignore[arg-type]
            Tool("f", "", {"type": "object", "properties": {}}),
        )

    @pytest.mark.parametrize(
        "tool",
        [
            {"type": "web_search_20250305", "name": "web_search"},
            {"google_search": {}},
            {"name": "weather", "input_schema": {"type": "object"}},
            {"type": "function", "name": "f"},
            {"type": "function", "function": {**FUNCTION, "strict": True}},
        ],
    )
    def test_a_providers_own_tools(self, tool: dict[str, Any]) -> None:
        """A tool that says anything a `Tool` cannot say is left as it is."""
        assert ask(tools=[MappingProxyType(tool)]).tools == (tool,)

    def test_tool_choice(self) -> None:
        """A tool choice is a word or a provider's own object."""
        assert ask(tool_choice="weather").tool_choice == "weather"
        assert ask(tool_choice={"type": "any"}).tool_choice == {"type": "any"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"prompt": 5}, "prompt must be a str, not int"),
            ({"prompt": b"Hi"}, "prompt must be a str, not bytes"),
            ({"prompt": "\ud800"}, "messages cannot be written as JSON"),
            ({"prompt": None}, "nothing to ask"),
            ({"prompt": None, "messages": []}, "nothing to ask"),
            ({"prompt": None, "messages": [{"role": "system", "content": "A"}]}, "nothing to ask"),
            ({"messages": "Hi"}, "messages must be a list of messages; pass a single text as pro"),
            ({"messages": b"Hi"}, "messages must be a list"),
            ({"messages": {"role": "user"}}, "messages must be a list"),
            ({"messages": 5}, "messages must be a list, not int"),
            ({"messages": iter([])}, "messages must be a list, not list_iterator"),
            ({"messages": ["Hi"]}, "wrong message: Expected `object`"),
            ({"messages": [{}]}, "wrong message: .*`role`"),
            ({"messages": [{"role": "robot"}]}, r"wrong message: .*\$.role"),
            ({"messages": [{"role": "user", "content": 5}]}, r"wrong message: .*\$.content"),
            ({"messages": [Message(role="robot")]}, r"wrong message: .*\$.role"),  # type: ignore[arg-type]
            ({"messages": [Message(role="user", content=5)]}, r"wrong message: .*\$.content"),  # type: ignore[arg-type]
            ({"model": None}, r"wrong argument: .*\$.model"),
            ({"model": " "}, "model must not be empty"),
            ({"system": 5}, "system must be a str, not int"),
            ({"system": ["A"]}, "system must be a str, not list"),
            ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
            ({"max_tokens": 1.5}, r"\$.max_tokens"),
            ({"max_tokens": "5"}, r"\$.max_tokens"),
            ({"max_tokens": True}, r"\$.max_tokens"),
            ({"temperature": -0.1}, "temperature must be a number of at least 0, not -0.1"),
            ({"temperature": float("nan")}, "temperature must be a number"),
            ({"temperature": float("inf")}, "temperature must be a number"),
            ({"temperature": "hot"}, r"\$.temperature"),
            ({"temperature": True}, r"\$.temperature"),
            ({"top_p": -1}, "top_p must be a number of at least 0, not -1"),
            ({"top_p": "1"}, r"\$.top_p"),
            ({"stop": 5}, "stop must be a list, not int"),
            ({"stop": b"a"}, "stop must be a list, not bytes"),
            ({"stop": {"a"}}, "stop must be a list, not set"),
            ({"stop": ["a", 5]}, r"\$.stop\[1\]"),
            ({"tools": Tool("a")}, "tools must be a list, not Tool"),
            ({"tools": {"a": 1}}, "tools must be a list, not dict"),
            ({"tools": "a"}, "tools must be a list, not str"),
            ({"tools": ["a"]}, "a tool must be a Tool or a dict, not str"),
            ({"tools": [Tool(5)]}, r"wrong tool: .*\$.name"),  # type: ignore[arg-type]
            ({"tools": [{"type": "function", "function": {}}]}, "wrong tool: .*`name`"),
            ({"tools": [{"f": object()}]}, "tools cannot be written as JSON"),
            ({"tool_choice": 5}, r"\$.tool_choice"),
            ({"extra_body": 5}, r"\$.extra_body"),
            ({"extra_body": []}, r"\$.extra_body"),
            ({"extra_body": {1: 2}}, r"\$.extra_body"),
            ({"extra_body": {"a": object()}}, "extra_body cannot be written as JSON"),
            ({"extra_body": looping()}, "extra_body cannot be written as JSON"),
        ],
        ids=lambda value: value if isinstance(value, str) else next(iter(value)),
    )
    def test_mistakes(self, arguments: dict[str, Any], message: str) -> None:
        """Whatever is wrong is a ConfigurationError that names the argument."""
        with pytest.raises(ConfigurationError, match=message):
            ask(**arguments)


class TestTexts:
    def test_texts_of_a_class_of_their_own(self) -> None:
        """What parsers of HTML return is a `str`, and is taken for what it says."""

        class Found(str):
            __slots__ = ()

            def __str__(self) -> str:
                return "<shown>"

        text = Found("said")
        part = {"type": "text", "text": text}
        messages: list[Any] = [{"role": "user", "content": content} for content in (text, [part])]
        chat = make_chat(text, [*messages, Message(role="user", content=text)], model="m")
        told = [turn.content for turn in chat.messages]
        assert msgspec.json.encode(told) == (
            b'["said",[{"type":"text","text":"said"}],"said","said"]'
        )


class TestMessage:
    def test_frozen(self) -> None:
        """A message cannot be changed."""
        with pytest.raises(AttributeError):
            Message(role="user").content = "Hi"  # type: ignore[misc]


class TestMakeMessage:
    def test_reasoning_is_carried(self) -> None:
        """What a gateway wants back of its reasoning is a field of a message."""
        details = [{"type": "reasoning.text", "text": "Hm", "signature": "s", "id": "x"}]
        message = make_message({"role": "assistant", "reasoning_details": details})
        assert message.reasoning_details == details

    @pytest.mark.parametrize("details", [5, "x", ["x"]])
    def test_reasoning_of_a_wrong_type(self, details: Any) -> None:
        """It is a list of objects."""
        with pytest.raises(ConfigurationError, match=r"\$.reasoning_details"):
            make_message({"role": "assistant", "reasoning_details": details})


class TestOwnReasoning:
    def test_only_its_own(self) -> None:
        """A provider gets what is its own, and what is not said to be anyone's."""
        details: list[dict[str, Any]] = [{"format": "a"}, {"format": "b"}, {"format": "c"}, {}]
        message = Message(role="assistant", reasoning_details=details)
        assert own_reasoning(message, "a", "b") == [{"format": "a"}, {"format": "b"}, {}]
        assert own_reasoning(Message(role="assistant"), "a") == []


class TestTool:
    def test_parameters_are_not_shared(self) -> None:
        """Each tool has parameters of its own."""
        one, two = Tool("a"), Tool("b")
        assert one.parameters == {"type": "object", "properties": {}}
        assert one.parameters is not two.parameters


class TestJSONArguments:
    @pytest.mark.parametrize(
        ("arguments", "parsed"),
        [
            ('{"a": [1, null]}', {"a": [1, None]}),
            ("{}", {}),
            ("", {}),
            (None, {}),
            ({"a": 1}, {"a": 1}),
        ],
    )
    def test_arguments(self, arguments: Any, parsed: dict[str, Any]) -> None:
        """Arguments are JSON text, or an object already, or absent."""
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        assert json_arguments(call) == ("c", "f", parsed)

    def test_without_id_and_arguments(self) -> None:
        """A call may have no identifier and no arguments."""
        assert json_arguments({"function": {"name": "f"}}) == (None, "f", {})

    @pytest.mark.parametrize(
        "call", [{}, {"function": None}, {"function": "f"}, {"function": {"name": 5}}]
    )
    def test_shape(self, call: dict[str, Any]) -> None:
        """A call of another shape is refused with the shape that is meant."""
        with pytest.raises(ConfigurationError, match="a tool call in messages must look like"):
            json_arguments(call)

    @pytest.mark.parametrize("text", ["{", "not json", '"\ud800"', "[" * 100_000])
    def test_not_json(self, text: str) -> None:
        """Arguments that are no JSON are refused by the tool's name."""
        with pytest.raises(ConfigurationError, match="tool call 'f' are not JSON"):
            json_arguments({"function": {"name": "f", "arguments": text}})

    @pytest.mark.parametrize("arguments", ["[1]", "null", '"a"', 5, [1]])
    def test_not_an_object(self, arguments: Any) -> None:
        """Arguments that are JSON but no object are refused."""
        with pytest.raises(ConfigurationError, match="'f' must be a JSON object"):
            json_arguments({"function": {"name": "f", "arguments": arguments}})


class TestCheckBaseURL:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("https://host", "https://host"),
            ("https://host/", "https://host"),
            ("https://host/v1//", "https://host/v1"),
            ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("HTTPS://Host/Path", "HTTPS://Host/Path"),
            ("https://host/models/a@1", "https://host/models/a@1"),
        ],
    )
    def test_good(self, given: str, kept: str) -> None:
        """An absolute web address stays as it is, without its trailing slashes."""
        assert check_base_url(given) == kept

    @pytest.mark.parametrize(
        "url",
        [
            *("", "host", "localhost:8080/v1", "/v1", "//host/v1", "https://", "https:///v1"),
            *("ftp://host", "file:///etc/passwd", "javascript:alert(1)", "https://:80"),
            *("https://host:99999", "https://host:port", "https://[::1"),
            *("https://host/a b", " https://host", "https://host\n", "https://ho\tst"),
            *("https://host\r\nX-Evil: 1", "https://host/\x00", "https://host/\x7f"),
        ],
    )
    def test_bad(self, url: str) -> None:
        """What is no absolute http or https address is refused and shown."""
        with pytest.raises(ConfigurationError, match="base_url must look like https://host/path"):
            check_base_url(url)

    def test_wrong_type(self) -> None:
        """A base URL is a text."""
        with pytest.raises(ConfigurationError, match="base_url must be a str, not bytes"):
            check_base_url(b"https://host")

    @pytest.mark.parametrize(
        "url",
        [
            *(f"https://user:{SECRET}@host", f"https://{SECRET}@host", f"https://:{SECRET}@host"),
            *("https://@host", "https://:@host", f"https://u:{SECRET}@ss@host"),
            *(f"https://u:pa/{SECRET}@host", f"ftp://u:a@{SECRET}@host", f"user:{SECRET}@host"),
            *(f"https://u:?{SECRET}@host", f"https://u:#{SECRET}@host", f"https://u:{SECRET} @h"),
        ],
    )
    def test_credentials(self, url: str) -> None:
        """A URL with credentials, even a broken one, is refused and they are not shown."""
        with pytest.raises(ConfigurationError, match="base_url must") as info:
            check_base_url(url)
        assert SECRET not in str(info.value)

    @pytest.mark.parametrize("tail", ["?", "#", f"?key={SECRET}", f"#{SECRET}", f"?a=b@{SECRET}"])
    def test_query_and_fragment(self, tail: str) -> None:
        """What would swallow the path that is appended is refused, and not shown."""
        with pytest.raises(ConfigurationError, match=re.escape("end before the '?'")) as info:
            check_base_url(f"https://host/v1{tail}")
        assert SECRET not in str(info.value)


class TestRedactURL:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://host/v1", "https://host/v1"),
            ("https://user:password@host/v1?key=k#f", "https://***@host/v1?***"),
            ("https://user:p@ss@host/v1", "https://***@host/v1"),
            ("https://host/v1#f", "https://host/v1?***"),
            ("https://host/v1?a\nb", "https://host/v1?***"),
            ("https://host/models/a@1", "https://host/models/a@1"),
        ],
    )
    def test_shown(self, url: str, shown: str) -> None:
        """User, password, query and fragment are left out, the rest is shown."""
        assert redact_url(url) == shown


class TestCheckHeader:
    @pytest.mark.parametrize("value", ["", "a", "a b\tc", "caf\xe9", "x" * 10_000])
    def test_good(self, value: str) -> None:
        """A header of printable Latin-1 passes."""
        assert check_header("X-Request-1", value) is None

    @pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "a\r\nb", "\xe4", 5, None, b"a"])
    def test_bad_name(self, name: Any) -> None:
        """What HTTP does not allow as a header's name is refused."""
        with pytest.raises(ConfigurationError, match="not a header name"):
            check_header(name, "a")

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (f"{SECRET}\n", "line break"),
            (f"{SECRET}\r\nX-Evil: 1", "line break"),
            (f"{SECRET}\rX", "line break"),
            (f"{SECRET}\x00", "control character"),
            (f"{SECRET}\x7f", "control character"),
            (f" {SECRET}", "outer space"),
            (f"{SECRET}\t", "outer space"),
            (f"{SECRET}€", "outside Latin-1"),
            (f"{SECRET}\ud800", "outside Latin-1"),
        ],
    )
    def test_bad_value(self, value: str, why: str) -> None:
        """A value that HTTP cannot carry is refused by name; a secret one is not shown."""
        with pytest.raises(ConfigurationError, match=f"the header X-Key holds.*{why}") as info:
            check_header("X-Key", value)
        assert SECRET in str(info.value)
        with pytest.raises(ConfigurationError, match=f"the header X-Key holds.*{why}") as info:
            check_header("X-Key", value, secret=True)
        assert SECRET not in str(info.value)
        assert info.value.__suppress_context__ or info.value.__context__ is None

    @pytest.mark.parametrize("value", [None, 5, b"a"])
    def test_wrong_type(self, value: Any) -> None:
        """A header's value is a text."""
        with pytest.raises(ConfigurationError, match="the header X-Key must be a str"):
            check_header("X-Key", value)


class TestHTTPRequest:
    def test_repr_hides_headers(self) -> None:
        """Neither the credentials nor the caller's own headers are in the repr."""
        request = HTTPRequest(
            "https://host", b"{}", {"X-Own": SECRET}, {"Authorization": f"Bearer {SECRET}"}
        )
        assert repr(request) == "HTTPRequest(url='https://host', body=b'{}', method='POST')"

    def test_defaults(self) -> None:
        """A request is a POST without headers."""
        request = HTTPRequest("https://host", b"")
        assert (request.method, request.headers, request.credentials) == ("POST", {}, {})
