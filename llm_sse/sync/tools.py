"""`run_tools()`: stream an answer, run the tools that it asks for, stream on.

    TokenStream: text, calls -> your functions, in your thread -> results -> TokenStream: text

Each answer is a round, with a request of its own; the conversation grows by the answer and by a
result for each of its calls. Nothing here waits for anything but the streams and the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal, get_args

import msgspec

from ..chat import Message, make_message
from ..completion import Completion, add_usage, assistant_turn
from ..errors import ConfigurationError, StreamClosed, StreamError, TooManyRounds
from ..events import Event, TextDelta, ToolCall, ToolResult, Usage
from ..metrics import StreamMetrics
from ..tools import FunctionTool, Tool
from .reader import Answered
from .recorder import Recording
from .stream import TokenStream, stream_sync

__all__ = ["ToolLoop", "run_tools"]

OnToolError = Literal["send", "raise"]
Ask = Callable[[list[Message], int], TokenStream]

#: How much of what a model wrote is told to it again when it is no JSON, in characters.
_SHOWN_CHARS = 1000


class ToolLoop(TokenStream):
    """The answers of a conversation in which tools run, as one stream.

    It is read like a `TokenStream`: iterating it gives the text of all rounds, `events()`
    everything that is said in them, and a `ToolResult` after each call. `text()`, `parsed()` and
    `completion` are those of the last round, so are `metrics` and `request_id`; `partial()` begins
    anew with each.

    Thread: one reader, in whose thread the tools run; `close()` may be called from any thread. It
    does not interrupt a tool that is running: when that returns, the loop ends.
    """

    def __init__(self, rounds: _Rounds, response_format: Any = None) -> None:
        # What runs does not know the loop that the caller holds: as with a single stream, dropping
        # it ends everything.
        super().__init__(rounds, response_format)
        self._rounds = rounds

    @property
    def messages(self) -> list[Message]:
        """The conversation so far: what was asked, and each answer with its results.

        It can be sent to any provider. An answer that has not ended is not in it, nor one whose
        calls `max_rounds` left without results.
        """
        return list(self._rounds.messages)

    @property
    def usage(self) -> Usage | None:
        """What all rounds together cost; waits for the end like `completion`."""
        answer = self.completion
        return add_usage(self._rounds.earlier_usage, answer.usage)

    def __repr__(self) -> str:
        return super().__repr__().replace("TokenStream", "ToolLoop", 1)


def run_tools(
    prompt: str | None = None,
    *,
    tools: Sequence[Tool | Callable[..., Any] | Mapping[str, Any]],
    messages: Sequence[Message | Mapping[str, Any]] | None = None,
    max_rounds: int = 10,
    on_tool_error: OnToolError = "send",
    **arguments: Any,
) -> ToolLoop:
    """Ask a model, run the tools that it calls, and go on until it answers without calling any.

    Returns at once: the first request is on its way in a thread of its own. The functions run in
    the thread that reads the loop, one after the other, in the order of the calls; meanwhile
    nothing is streamed.

    A call that fails ends nothing: wrong arguments, a tool that does not exist and an exception
    become a result that tells the model so. What an exception says is thereby sent to the provider.

    Args:
        prompt: The question; with `messages`, their last user turn.
        tools: Functions, and what `stream_sync` takes. A call of a tool that has no function ends
            the loop, with `finish_reason` `tool_calls`: then it is yours to answer.
        messages: A conversation, in the shape of OpenAI's chat messages.
        max_rounds: How many answers there may be at most.
        on_tool_error: `raise` lets a function's exception through instead of telling the model.
        arguments: Those of `stream_sync`, the same for every round: limits and retries count anew
            in each. But a `tool_choice` that demands a call (`required`, or a tool's name) holds
            for the first round only, because otherwise there would be no end. `record` gets all
            rounds into one file.

    Raises:
        ConfigurationError: Something is missing or wrong; nothing was sent. The loop itself ends in
            the errors of `stream_sync`, and in `TooManyRounds`.
    """
    if isinstance(max_rounds, bool) or not isinstance(max_rounds, int) or max_rounds < 1:
        raise ConfigurationError(f"max_rounds must be at least 1, not {max_rounds!r}")
    if on_tool_error not in get_args(OnToolError):
        raise ConfigurationError(f"on_tool_error is 'send' or 'raise', not {on_tool_error!r}")
    described, functions = _read_tools(tools)
    conversation = _conversation(prompt, messages)
    if arguments.get("record") is not None:
        arguments["record"] = Recording(arguments["record"])

    def ask(messages: list[Message], number: int) -> TokenStream:
        """Open the stream of one round."""
        given = dict(arguments)
        choice = given.get("tool_choice")
        if number > 1 and isinstance(choice, str) and choice not in ("auto", "none"):
            del given["tool_choice"]
        return stream_sync(messages=messages, tools=described, **given)

    rounds = _Rounds(ask, conversation, functions, max_rounds, on_tool_error)
    return ToolLoop(rounds, arguments.get("response_format"))


class _Rounds:
    """The rounds of a loop; to a `TokenStream` it is what a `Reader` is.

    Attributes:
        ended: Whether nothing more will be delivered.
        error: What the loop ended with, if it was an error.
        claimed: Whether somebody is reading.
        stream: The round under way, or the last one.
        messages: The conversation so far.
        earlier_usage: What the rounds before this one cost.

    Thread: one reader's; `close` is everybody's.
    """

    def __init__(
        self,
        ask: Ask,
        messages: list[Message],
        functions: Mapping[str, FunctionTool | None],
        max_rounds: int,
        on_tool_error: OnToolError,
    ) -> None:
        self.ended = False
        self.error: BaseException | None = None
        self.claimed = False
        self.messages = messages
        self.earlier_usage: Usage | None = None
        self._ask = ask
        self._functions = functions
        self._max_rounds = max_rounds
        self._raises = on_tool_error == "raise"
        self.stream = ask(messages, 1)

    def events(self) -> Generator[Event, None, None]:
        """Yield the events of all rounds, and the results between them; leaving early closes all.

        Raises:
            StreamError: The one error that ended the loop.
        """
        self._claim()
        try:
            yield from self._events()
        except StreamClosed:
            if not self.ended:  # else somebody closed it before its first event could be read
                raise
        except Exception as error:
            self.error = error
            raise
        finally:
            self.claimed = False
            self.close()

    def tokens(self) -> Generator[str, None, None]:
        """Yield the text of all rounds; leaving early closes all.

        Raises:
            StreamError: The one error that ended the loop.
        """
        with closing(self.events()) as events:
            for event in events:
                if type(event) is TextDelta:
                    yield event.text

    @property
    def provider(self) -> str:
        """The name of the provider that is asked in the round under way."""
        return self.stream.provider

    @property
    def answered(self) -> Answered | None:
        """How the provider answered in the round under way, if it has."""
        return self.stream._reader.answered

    def metrics(self) -> StreamMetrics:
        """Return the pace of the round under way, or of the last one."""
        return self.stream.metrics

    def completion(self) -> Completion:
        """Return what has been delivered of the round under way, or of the last one."""
        return self.stream.completion

    def wait_started(self, timeout_s: float | None) -> bool:
        """Wait until the provider's status is known.

        Raises:
            StreamError: What the stream ended with instead.
        """
        return self.stream.wait_started(timeout_s)

    def close(self) -> None:
        """End the loop now, from any thread."""
        self.ended = True
        self.stream.close()

    def _is_closed(self) -> bool:
        """Whether somebody has closed the loop; it may be another thread, at any time."""
        return self.ended

    def _claim(self) -> None:
        self._refuse_second_reader()
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.ended:
            raise self._closed("has been read to its end or closed; see .completion and .messages")
        self.claimed = True

    def _refuse_second_reader(self) -> None:
        if self.claimed:
            raise self._closed("is being read already; it has one reader")

    def _closed(self, what: str) -> StreamClosed:
        return StreamClosed(f"this loop {what}", provider=self.stream.provider)

    def _events(self) -> Generator[Event, None, None]:
        number = 1
        while True:
            yield from self.stream.events()
            answer = self.stream.completion
            if self._is_closed() or answer.finish_reason is None:
                return
            calls = answer.tool_calls if answer.finish_reason == "tool_calls" else ()
            yours = [call for call in calls if self._functions.get(call.name, call) is None]
            if calls and not yours and number >= self._max_rounds:
                raise self._too_many(answer)
            turn = assistant_turn(answer, str(len(self.messages)))
            self._append(turn if calls else msgspec.structs.replace(turn, tool_calls=None))
            for call, sent in zip(calls, turn.tool_calls or (), strict=False):
                if call in yours:
                    continue
                result = self._run(call, sent["id"])
                if self._is_closed():
                    return
                self._append(Message(role="tool", tool_call_id=result.id, content=result.content))
                yield result
            if yours or not calls:
                return
            number += 1
            self._next_round(answer, number)
            if self._is_closed():  # meanwhile; who closed it did not know this stream
                return

    def _next_round(self, answer: Completion, number: int) -> None:
        try:
            stream = self._ask(self.messages, number)
        except StreamError as error:
            error.completion = answer
            raise
        self.earlier_usage = add_usage(self.earlier_usage, answer.usage)
        self.stream = stream

    def _append(self, message: Message) -> None:
        """Let the conversation grow; an answer without anything in it is no turn."""
        if message.content is not None or message.tool_calls:
            self.messages.append(message)

    def _run(self, call: ToolCall, id_: str) -> ToolResult:
        """Run one call; whatever is wrong with it becomes its result."""
        tool = self._functions.get(call.name)
        if call.error is not None:
            error = f"{call.error}; you wrote: {call.arguments_text[:_SHOWN_CHARS]}"
        elif tool is None:
            error = f"there is no tool {call.name!r}; there are: {', '.join(self._functions)}"
        else:
            try:
                arguments = tool.convert(call.arguments)
            except (msgspec.ValidationError, RecursionError) as problem:
                error = f"the arguments are wrong: {problem}"
            else:
                try:
                    return ToolResult(id_, call.name, _text_of(tool.function(**arguments)))
                except Exception as problem:
                    if self._raises:
                        raise
                    error = f"{type(problem).__name__}: {problem}"
        error = error.encode("utf-8", "replace").decode()
        return ToolResult(id_, call.name, f"Error: {error}", error)

    def _too_many(self, answer: Completion) -> TooManyRounds:
        names = ", ".join(call.name for call in answer.tool_calls)
        error = TooManyRounds(
            f"{self.stream.provider}: answer {self._max_rounds} still asks for tools ({names}); "
            "pass a larger max_rounds, or go on from .messages",
            provider=self.stream.provider,
            request_id=self.stream.request_id,
        )
        error.completion = answer
        return error


def _read_tools(tools: Any) -> tuple[list[Any], dict[str, FunctionTool | None]]:
    """Return the tools as the provider is told of them, and by name what runs: or nothing."""
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise ConfigurationError(f"tools must be a list, not {type(tools).__name__}")
    described: list[Any] = []
    functions: dict[str, FunctionTool | None] = {}
    for given in tools:
        is_described = isinstance(given, (Tool, Mapping)) or not callable(given)
        tool = given if is_described else Tool.from_function(given)
        for name in _names(tool):
            if name in functions:
                raise ConfigurationError(f"there are two tools of the name {name!r}")
            functions[name] = tool if isinstance(tool, FunctionTool) else None
        described.append(tool)
    return described, functions


def _names(tool: Any) -> Iterator[str]:
    """Yield the names by which a tool may be called, in whatever shape it is described."""
    if isinstance(tool, Tool):
        yield tool.name
        return
    if not isinstance(tool, Mapping):
        return
    declared = tool.get("functionDeclarations") or tool.get("function_declarations") or ()
    inner = (tool.get("function"), tool.get("custom"))
    for shape in (tool, *inner, *(declared if isinstance(declared, Sequence) else ())):
        if isinstance(shape, Mapping) and isinstance(shape.get("name"), str):
            yield shape["name"]


def _conversation(prompt: Any, messages: Any) -> list[Message]:
    """Return the conversation as one list; what is wrong with it `stream_sync` tells."""
    if messages is not None and (
        isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence)
    ):
        raise ConfigurationError(
            "messages must be a list of messages; pass a single text as prompt instead"
        )
    turns = [make_message(message) for message in messages or ()]
    if prompt is not None:
        if not isinstance(prompt, str):
            raise ConfigurationError(f"prompt must be a str, not {type(prompt).__name__}")
        turns.append(Message(role="user", content=prompt))
    return turns


def _text_of(result: Any) -> str:
    """Return what the model is told: a text as it is, anything else as JSON."""
    encoded = msgspec.json.encode(result)  # a text, too: half a character could not be sent
    return result if isinstance(result, str) else encoded.decode()
