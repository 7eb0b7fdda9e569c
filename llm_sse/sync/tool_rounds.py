"""The rounds of a tool loop: stream an answer, run its calls, ask again with the results."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..chat import Message
from ..completion import Completion, add_usage, assistant_turn
from ..errors import StreamClosed, StreamError, TooManyRounds
from ..events import Event, ToolCall, ToolResult, Usage
from ..metrics import StreamMetrics
from ..tools import FunctionTool
from .reader import Answered, text_of
from .source import without_frames
from .stream import TokenStream
from .tool_runs import run_call

__all__ = ["OnToolError", "Rounds"]

OnToolError = Literal["send", "raise"]
Ask = Callable[[list[Message], int], TokenStream]
_Round = tuple[TokenStream, Usage | None, tuple[StreamMetrics, ...]]

#: The results of calls that have none, because the loop ended while it ran the calls of an answer.
_NOT_RUN = "Error: not run: the loop was ended before"
_INTERRUPTED = "Error: it was begun, and the loop was ended before it had a result"


class Rounds:
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
        #: The round under way, or the last one, and what those before it cost and took: one value,
        #: because other threads look at it.
        self._round: _Round = (ask(messages, 1), None, ())

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
        return text_of(self.events())

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

    def round_metrics(self) -> tuple[StreamMetrics, ...]:
        """Return the pace of each round, the one under way included."""
        stream, _, earlier = self._round
        return (*earlier, stream.metrics)

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
        stream, earlier, _ = self._round
        return add_usage(earlier, stream._reader.completion().usage)

    def wait_started(self, timeout_s: float | None, retry_within_s: float | None = None) -> bool:
        """Wait until the provider's status is known.

        Raises:
            StreamError: What the stream ended with instead.
        """
        return self.stream.wait_started(timeout_s, retry_within_s)

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
        self._round = (stream, self.usage(), self.round_metrics())

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
