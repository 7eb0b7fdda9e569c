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
from .source import without_frames
from .stream import TokenStream, stream_sync
from .tool_runs import run_call

__all__ = ["ToolLoop", "run_tools"]

OnToolError = Literal["send", "raise"]
Ask = Callable[[list[Message], int], TokenStream]

#: The results of calls that have none, because the loop ended while it ran the calls of an answer.
_NOT_RUN = "Error: not run: the loop was ended before"
_INTERRUPTED = "Error: it was begun, and the loop was ended before it had a result"
#: What a `tool_choice` in a provider's own words says if the model need not call anything.
_DEMANDS_NOTHING = frozenset({"auto", "none", "validated"})


class ToolLoop(TokenStream):
    """The answers of a conversation in which tools run, as one stream.

    It is read like a `TokenStream`: iterating it gives the text of all rounds, `events()`
    everything that is said in them, and a `ToolResult` after each call. `text()`, `parsed()` and
    `completion` are those of the last round, so are `metrics` and `request_id`; `partial()` begins
    anew with each. A loop that was left, closed or interrupted before its end is a stream that was:
    the `finish_reason` is `None`, also if it was a tool that was running.

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

        It can be sent at every moment: an answer that calls tools comes into it together with all
        results. If the loop ends while its tools run, by whatever, those that have not run have a
        result that says so. An answer that has not ended is not in it, nor one of whose calls none
        was begun, as with `max_rounds`. Only calls of tools without a function stand in it without
        results: those are yours to add.
        """
        return list(self._rounds.messages)

    @property
    def usage(self) -> Usage | None:
        """What all rounds together cost; waits for the end like `completion`."""
        _ = self.completion  # waits
        return self._rounds.usage()

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
            in each. But a `tool_choice` that demands a call (`required`, a tool's name, or the
            same in a provider's own words) holds for the first round only, because otherwise there
            would be no end. `record` gets all rounds into one file.

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
        if number > 1 and _demands_a_call(given.get("tool_choice")):
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
        messages: The conversation so far; it can be sent at every moment.

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
        self._over = False
        self._ask = ask
        self._functions = functions
        self._max_rounds = max_rounds
        self._raises = on_tool_error == "raise"
        #: The round under way, or the last one, and what those before it cost: one value, because
        #: other threads look at it.
        self._round: tuple[TokenStream, Usage | None] = (ask(messages, 1), None)

    @property
    def stream(self) -> TokenStream:
        """The round under way, or the last one."""
        return self._round[0]

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
            if isinstance(error, StreamError) and error.completion is None:
                error.completion = self.completion()
            self.error = error
            raise
        finally:
            self._keep_last_answer()
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
        """Return what has been delivered of the round under way, or of the last one.

        An answer whose calls have not all run is not the end of the loop.

        Thread: anyone's; it never reads.
        """
        answer = self.stream._reader.completion()
        if self._over or not _calls_of(answer):
            return answer
        return msgspec.structs.replace(answer, finish_reason=None)

    def usage(self) -> Usage | None:
        """Return what all rounds have cost so far."""
        stream, earlier = self._round
        return add_usage(earlier, stream._reader.completion().usage)

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
            answer = self.stream._reader.completion()
            calls = _calls_of(answer)
            if self._is_closed() or not calls:
                return
            is_whole = all(self._is_ours(call) for call in calls)
            if is_whole and number >= self._max_rounds:
                self._over = True
                raise self._too_many(answer)
            yield from self._run_calls(answer)
            if self._is_closed() or not is_whole:
                return
            number += 1
            self._next_round(answer, number)
            if self._is_closed():  # meanwhile; who closed it did not know this stream
                return

    def _run_calls(self, answer: Completion) -> Generator[ToolResult, None, None]:
        """Run the calls of an answer; let the conversation grow by it and all results at once."""
        turn = assistant_turn(answer, str(len(self.messages)))
        ids: list[str] = [sent["id"] for sent in turn.tool_calls or ()]
        ours = [place for place, call in enumerate(answer.tool_calls) if self._is_ours(call)]
        contents: dict[int, Any] = {}
        begun = grown = False
        try:
            for place in ours:
                if self._is_closed():
                    return
                begun, contents[place] = True, _INTERRUPTED
                result = run_call(
                    answer.tool_calls[place], ids[place], self._functions, raises=self._raises
                )
                contents[place] = result.content
                if self._is_closed():
                    return
                if place == ours[-1]:
                    grown = True
                    self._grow(turn, ids, contents)
                yield result
            if not ours:
                self._grow(turn, ids, contents)
        finally:
            if begun and not grown:
                self._grow(turn, ids, dict.fromkeys(range(len(ids)), _NOT_RUN) | contents)

    def _grow(self, turn: Message, ids: Sequence[str], contents: Mapping[int, Any]) -> None:
        results = [
            Message(role="tool", tool_call_id=ids[place], content=contents[place])
            for place in sorted(contents)
        ]
        self._over = len(results) < len(ids)  # the others are the caller's to answer
        self.messages += [turn, *results]

    def _keep_last_answer(self) -> None:
        """Put the answer that ends the loop into the conversation, if there is anything in it."""
        answer = self.stream._reader.completion()
        if answer.finish_reason is None or _calls_of(answer):
            return
        turn = msgspec.structs.replace(assistant_turn(answer), tool_calls=None)
        if turn.content is not None:
            self.messages.append(turn)

    def _is_ours(self, call: ToolCall) -> bool:
        """Whether there is a function for it; a tool that nobody knows is answered here, too."""
        return self._functions.get(call.name, call) is not None

    def _next_round(self, answer: Completion, number: int) -> None:
        try:
            stream = self._ask(self.messages, number)
        except StreamError as error:
            error.completion = msgspec.structs.replace(answer, finish_reason=None)
            raise without_frames(error) from None  # they hold the key
        self._round = (stream, self.usage())

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


def _calls_of(answer: Completion) -> tuple[ToolCall, ...]:
    """Return the calls that an answer asks for; one that was cut asks for nothing."""
    return answer.tool_calls if answer.finish_reason == "tool_calls" else ()


def _demands_a_call(choice: Any) -> bool:
    """Whether a `tool_choice`, in anybody's words, leaves the model no way but to call a tool."""
    if choice is None or isinstance(choice, str):
        return choice not in (None, "auto", "none")
    if not isinstance(choice, Mapping):
        return False
    shapes = [choice, *(inner for inner in choice.values() if isinstance(inner, Mapping))]
    words = [shape.get(word) for shape in shapes for word in ("type", "mode")]
    return not any(isinstance(word, str) and word.lower() in _DEMANDS_NOTHING for word in words)


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
        turns.append(Message(role="user", content=str.__str__(prompt)))
    return turns
