"""`run_tools()`: stream an answer, run the tools that it asks for, stream on.

    TokenStream: text, calls -> your functions, in your thread -> results -> TokenStream: text

Each answer is a round, with a request of its own; the conversation grows by the answer and by a
result for each of its calls. Nothing here waits for anything but the streams and the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from typing import Any, get_args

from ..chat import Message, read_turns
from ..errors import ConfigurationError
from ..events import Usage
from ..metrics import StreamMetrics
from ..tools import FunctionTool, Tool
from .ask import stream_sync
from .recorder import Recording
from .stream import TokenStream
from .tool_rounds import OnToolError, Rounds

__all__ = ["ToolLoop", "run_tools"]

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

    def __init__(self, rounds: Rounds, response_format: Any = None) -> None:
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

    @property
    def round_metrics(self) -> tuple[StreamMetrics, ...]:
        """The pace of each round so far; each counts from its own request on."""
        return self._rounds.round_metrics()

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
    conversation = read_turns(prompt, messages)
    context = copy_context()  # each round's, wherever the loop is read
    if arguments.get("record") is not None:
        arguments["record"] = Recording(arguments["record"])

    def ask(messages: list[Message], number: int) -> TokenStream:
        """Open the stream of one round."""
        given = dict(arguments)
        if number > 1 and _demands_a_call(given.get("tool_choice")):
            del given["tool_choice"]
        # A copy for each: one is entered by one thread at a time.
        return context.copy().run(stream_sync, messages=messages, tools=described, **given)

    rounds = Rounds(ask, conversation, functions, max_rounds, on_tool_error)
    return ToolLoop(rounds, arguments.get("response_format"))


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
