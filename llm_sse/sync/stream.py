"""`TokenStream`: what `stream_sync()` returns, and the loop that callers write."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..completion import Completion
from ..errors import APIError, ConfigurationError, InvalidOutputError, StreamClosed
from ..events import Event, TextDelta, ToolResult
from ..metrics import StreamMetrics
from ..rate_limit import RateLimit, read_rate_limit
from ..response_format import read_format
from .reader import Reading

if TYPE_CHECKING:
    from ..growing import GrowingValue

__all__ = ["TokenStream"]


class TokenStream:
    """One answer while it arrives.

    Iterate it for the text, delta by delta as the provider cut it; or iterate `events()` for
    everything that the provider says. A stream is read once, by one thread. Whoever leaves the
    loop early, by `break` or by an exception, closes it; so does the end of a `with` block, and so
    does dropping the last reference. A loop whose stream is closed by somebody else just stops:
    then `completion.finish_reason` is `None`.

    Thread: one reader; `close()` may be called from any thread.
    """

    def __init__(self, reader: Reading, response_format: Any = None) -> None:
        self._reader = reader
        self._response_format = response_format
        self._next: Generator[str, None, None] | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield the text deltas.

        Raises:
            StreamError: The one error that ended the stream, with `.completion`.
        """
        return self._reader.tokens() if self._next is None else self._rest()

    def __next__(self) -> str:
        """Return the next text delta; unlike a loop that is left, it never closes the stream."""
        if self._reader.error is not None:
            raise self._reader.error.with_traceback(None)
        if self._next is None:
            self._next = self._reader.tokens()
        try:
            return next(self._next)
        except ValueError:  # a generator's way to say that it is running
            raise StreamClosed(
                "two threads are reading one stream; give each a stream of its own",
                provider=self.provider,
            ) from None

    def _rest(self) -> Iterator[str]:
        """Yield what `next()` has left; leaving early closes the stream here, too."""
        while True:
            try:
                token = next(self)
            except StopIteration:
                return
            try:
                yield token
            except GeneratorExit:
                self.close()
                raise

    def events(self) -> Iterator[Event]:
        """Yield the typed events of `llm_sse.events`; the last one is `Finish`.

        Raises:
            StreamError: The one error that ended the stream, with `.completion`.
        """
        return self._reader.events()

    def text(self) -> str:
        """Read to the end and return the visible answer, whole.

        Raises:
            StreamError: The one error that ended the stream, with `.completion`.
            StreamClosed: The stream was closed before its end, or a loop is reading it.
        """
        if self._reader.error is not None:
            raise self._reader.error.with_traceback(None)
        if self._next is not None and not self._reader.ended:
            for _ in self._rest():
                pass
        completion = self.completion
        if completion.finish_reason is None:
            read = self._reader.claimed and not self._reader.ended
            state = "is being read" if read else "was closed before its end"
            raise StreamClosed(
                f"this stream {state}; what has arrived is in .completion", provider=self.provider
            )
        return completion.text

    def parsed(self) -> Any:
        """Read to the end and return the value that the answer is, checked.

        With a type as `response_format` it is an instance of that; with a schema, or without any
        format, what JSON gives. What is checked is said at `Completion.parsed`.

        Raises:
            InvalidOutputError: The answer is not what was asked for.
            StreamError: The one error that ended the stream, with `.completion`.
            StreamClosed: The stream was closed before its end, or a loop is reading it.
        """
        self.text()
        try:
            return self.completion.parsed(self._response_format)
        except InvalidOutputError as error:
            error.request_id = self.request_id
            raise

    def partial(self) -> Iterator[Any]:
        """Yield the JSON value that the answer is while it grows, after each field or item.

        It is the same dictionary or list each time, with more in it: a copy for each would take
        time that grows with the square of the answer. Copy what you keep. Strings and numbers are
        in it when they are whole; the last value yielded is the whole answer. It is JSON as it
        comes: only `parsed()`, which may be called after the loop, checks it and makes instances.

        It needs the library `ijson`, which comes with the extra `structured`. Leaving the loop
        early closes the stream.

        Raises:
            InvalidOutputError: The answer is no JSON, or not whole; raised at its end.
            ConfigurationError: `ijson` is not installed; raised by the call itself.
            StreamError: The one error that ended the stream, with `.completion`.
        """
        try:
            from ..growing import GrowingValue  # noqa: PLC0415  # its library is optional
        except ImportError as error:
            raise ConfigurationError(
                f"partial() needs the library ijson: pip install 'llm-sse[structured]' ({error})"
            ) from None
        format_ = read_format(self._response_format)
        wrapped = format_ is not None and format_.wrapped
        return self._grow(lambda: GrowingValue(wrapped=wrapped))

    def _grow(self, begin: Callable[[], GrowingValue]) -> Generator[Any, None, None]:
        from ..structured import ending_problem, invalid_output  # noqa: PLC0415  # see `response_format`

        growing = begin()
        with closing(self._reader.events()) as events:
            for event in events:
                if isinstance(event, TextDelta):
                    yield from growing.feed(event.text)
                elif isinstance(event, ToolResult):
                    # That answer only asked for tools; another one follows.
                    growing = begin()
        completion = self.completion
        if completion.finish_reason is None:
            return  # somebody has closed it
        problem = ending_problem(completion)
        if problem is None:
            yield from growing.end(cut=completion.finish_reason == "length")
            if growing.complete and growing.problem is None:
                return
        failure = invalid_output(completion, problem, growing.problem)
        failure.request_id = self.request_id
        raise failure

    @property
    def completion(self) -> Completion:
        """The whole answer; waits for its end.

        Inside the loop, after `next()`, after the loop was left early and after an error it is what
        had arrived by then.

        Raises:
            StreamError: The one error that ended the stream, if it ends here.
        """
        reader = self._reader
        if not reader.claimed and not reader.ended:
            for _ in reader.events():
                pass
        return reader.completion()

    @property
    def provider(self) -> str:
        """The provider's name; with `fallback`, that of the one that is being asked."""
        return self._reader.provider

    @property
    def metrics(self) -> StreamMetrics:
        """The pace of the stream so far, at any time and from any thread."""
        return self._reader.metrics()

    @property
    def request_id(self) -> str | None:
        """The provider's identifier of the request; `None` until it has answered."""
        answered, error = self._reader.answered, self._reader.error
        if isinstance(error, APIError):
            return error.request_id
        return answered.request_id if answered is not None else None

    @property
    def rate_limit(self) -> RateLimit | None:
        """How much may still be asked of the provider; `None` until it has answered.

        Also `None` where the provider says nothing about it.
        """
        return read_rate_limit(self.response_headers)

    @property
    def response_headers(self) -> dict[str, str]:
        """The response's headers, with lower-case names; empty until the provider has answered."""
        answered, error = self._reader.answered, self._reader.error
        if isinstance(error, APIError):
            return dict(error.headers)
        return dict(answered.headers) if answered is not None else {}

    def wait_started(
        self, timeout_s: float | None = None, retry_within_s: float | None = None
    ) -> bool:
        """Wait until the provider's status is known, so that a view can still answer with it.

        Args:
            timeout_s: How long to wait, in seconds; `None` leaves it to the stream's own limits.
            retry_within_s: How long a status is of use, in seconds. A refusal whose `Retry-After`
                goes beyond that is raised instead of being waited for; with `fallback` the next
                provider is asked. `None` leaves it to `retry`.

        Returns:
            Whether the provider has accepted the request; `False` if that is still open.

        Raises:
            StreamError: The request has failed.
        """
        return self._reader.wait_started(timeout_s, retry_within_s)

    def close(self) -> None:
        """End the stream now; its thread and its connection go away. May be called again."""
        self._reader.close()

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "ended" if self._reader.ended else "reading" if self._reader.claimed else "open"
        return f"<TokenStream provider={self.provider!r} {state}>"
