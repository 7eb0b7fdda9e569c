"""Play recordings back over a real socket: `FakeServer(replay=...)`.

Each request gets the next recorded attempt of its format: the same status, headers and bytes, at
the same times or faster, and the same ending. What a recording cannot say is how the bytes were
framed; they are sent as HTTP chunks, one for each read of the recorded stream.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Union
from urllib.parse import urlsplit

from ..errors import ConfigurationError, InvalidRequestError
from ..providers import PROVIDERS, Provider, find_provider, provider_names
from ..providers.base import Accepted
from ..recording import Attempt, parse_recording
from .body import Body, body
from .record import RecordedRequest
from .reply import Farewell

__all__ = ["Playback", "Recordings", "Replay"]

#: One recording, or several.
Recordings = Union[str, "os.PathLike[str]", Sequence[Union[str, "os.PathLike[str]"]]]

#: Headers that say how one connection's bytes were framed; these are framed anew.
_OF_THE_CONNECTION = (
    "connection",
    "content-encoding",
    "content-length",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
_WITHOUT_BODY = (204, 304)
#: Ends after which the server was still there: so it stays, until the client goes.
_STAYS = ("no_end", "timeout", "closed")


class Replay:
    """The attempts of some recordings, and which of them is the next.

    Args:
        given: The files.
        speed: How many times faster than recorded; `None` is as fast as it can.

    Raises:
        ConfigurationError: A file cannot be read or played, or the speed is none.

    Thread: not safe by itself; the server locks it.
    """

    def __init__(self, given: Recordings, speed: float | None) -> None:
        number = isinstance(speed, (int, float)) and not isinstance(speed, bool)
        if speed is not None and not (number and 0 < speed < float("inf")):
            raise ConfigurationError(f"replay_speed must be above 0 or None, not {speed!r}")
        self.speed = speed
        self._attempts: dict[str, list[Attempt]] = {}
        self._next: dict[str, int] = {}
        for path in _paths(given):
            for attempt in _read(path):
                self._attempts.setdefault(attempt.format, []).append(attempt)

    def next(self, provider: Provider, accepted: Accepted) -> Attempt:
        """Return what answers a request; after the last attempt the first one follows.

        Raises:
            APIError: Nothing of that kind was recorded.
        """
        of_format = self._attempts.get(provider.wire_format)
        if of_format is None:
            recorded = ", ".join(self._attempts)
            raise provider.api_error(
                400,
                f"this server replays a recording in the format {recorded}, and was asked in "
                f"{provider.wire_format}",
            )
        attempt = of_format[self._at(provider.wire_format)]
        if attempt.request.stream != accepted.stream:
            kinds = {True: "a stream", False: "a whole answer"}
            raise provider.api_error(
                400,
                f"this server replays {kinds[attempt.request.stream]}, and was asked for "
                f"{kinds[accepted.stream]}",
            )
        self._next[provider.wire_format] = self._at(provider.wire_format) + 1
        return attempt

    def taken_up(self, recorded: RecordedRequest) -> Attempt:
        """Return what answers a request for the rest of an answer that the provider has kept.

        Raises:
            InvalidRequestError: It is not what was recorded next.
        """
        for name, of_format in self._attempts.items():
            request = of_format[self._at(name)].request
            same = urlsplit(request.url).path.rpartition("/")[2] == recorded.path.rpartition("/")[2]
            if same and request.method == recorded.method:
                self._next[name] = self._at(name) + 1
                return of_format[self._next[name] - 1]
        what = f"{recorded.method} {recorded.path}"
        raise InvalidRequestError("", status=404, detail=f"{what} is not what was recorded next")

    def _at(self, name: str) -> int:
        return self._next.get(name, 0) % len(self._attempts[name])


class Line(Protocol):
    """What a playback needs of its connection."""

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""

    def send_head(self, headers: dict[str, str], drip_s: float | None, *, status: int) -> None:
        """Send a status and headers."""

    def wait(self, seconds: float | None) -> None:
        """Sleep, for ever with `None`; raise if the client goes away."""

    def hang_up(self, how: Farewell) -> None:
        """Close the connection when the answer has been played."""


class Playback:
    """One attempt, played to one client.

    Each has a connection of its own: otherwise a client could take an answer that never came for a
    pooled connection that had been closed, and ask again in silence.

    Args:
        line: Where it is sent.
        recorded: Where it is noted how it goes.
        attempt: What is played.
        speed: How many times faster than recorded; `None` is as fast as it can.
    """

    def __init__(
        self, line: Line, recorded: RecordedRequest, attempt: Attempt, speed: float | None
    ) -> None:
        self._line = line
        self._recorded = recorded
        self._attempt = attempt
        self._speed = speed
        self._began = time.monotonic()

    def play(self) -> None:
        """Play the attempt, from the request to the end."""
        attempt, line = self._attempt, self._line
        line.hang_up("polite")
        if attempt.response is None:
            self._end_without_answer()
            return
        status, headers = attempt.response.status, attempt.response.headers
        packed = headers.get("content-encoding", "identity") != "identity"
        framed = body("gzip" if packed else "chunked", line.send, 0)
        kept = {
            name: value
            for name, value in headers.items()
            if name not in _OF_THE_CONNECTION and "***" not in value
        }
        framing = {} if status in _WITHOUT_BODY else framed.headers
        self._wait_until(attempt.response.at_s)
        if not attempt.chunks:
            self._note()
        line.send_head({**kept, **framing, "Connection": "close"}, None, status=status)
        for chunk in attempt.chunks:
            self._wait_until(chunk.at_s)
            if chunk is attempt.chunks[-1]:
                self._note()
            framed.write(chunk.data)
        self._end(framed, has_body=status not in _WITHOUT_BODY)

    def _end(self, framed: Body, *, has_body: bool) -> None:
        end = self._attempt.end
        if end.how in _STAYS:
            self._line.wait(None)
        self._wait_until(end.at_s)
        if end.how in ("end_of_body", "left"):  # nobody looked for what followed the latter
            if has_body:
                framed.end()
            return
        if end.how == "broken_compression":
            broken = b"\xff" * 32
            self._line.send(b"%x\r\n%s\r\n" % (len(broken), broken))
        self._line.hang_up("abrupt")

    def _end_without_answer(self) -> None:
        end = self._attempt.end
        if end.how in _STAYS:
            self._line.wait(None)
        self._wait_until(end.at_s)
        self._recorded.end("cut")
        if end.how == "no_http":
            self._line.send(b"This is not HTTP.\r\n\r\n")
        self._line.hang_up("reset" if end.how == "no_connection" else "abrupt")

    def _note(self) -> None:
        """Note how the answer ends, before the client can see the end, and look."""
        end, response = self._attempt.end, self._attempt.response
        if response is not None and not 200 <= response.status < 300:
            self._recorded.end("refused")
        elif end.how not in ("timeout", "closed"):
            whole = end.how in ("end_of_body", "left", "no_end") and not end.error
            self._recorded.end("complete" if whole else "cut")

    def _wait_until(self, at_s: float) -> None:
        if self._speed is not None:
            due = self._began + (at_s - self._attempt.request.at_s) / self._speed
            self._line.wait(due - time.monotonic())


def _paths(given: Any) -> list[Path]:
    several = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    paths = list(given) if several else [given]
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise ConfigurationError(
                f"replay must be a recording's path, or a list of them; not {path!r}"
            )
    if not paths:
        raise ConfigurationError("replay needs at least one recording")
    return [Path(path) for path in paths]


def _read(path: Path) -> list[Attempt]:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"the recording {str(path)!r} cannot be read: {reason}") from None
    attempts = parse_recording(data, str(path))[1]
    for attempt in attempts:
        known = _formats(attempt.format)
        if attempt.format not in known:
            raise ConfigurationError(
                f"{path}: nobody knows the format {attempt.format!r}; there are: {', '.join(known)}"
            )
    return attempts


def _formats(wanted: str) -> list[str]:
    """Return the names of the formats, those of rows that were not loaded yet only if need be."""
    found = [row.wire_format for row in list(PROVIDERS.values())]
    if wanted not in found:
        for name in provider_names():
            with suppress(ConfigurationError):  # it cannot be loaded, and need not be here
                found.append(find_provider(name).wire_format)
    return list(dict.fromkeys(found))
