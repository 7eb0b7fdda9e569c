"""Errors of `requests` and `urllib3`: which of ours they are, and what they say.

The transport asks here when a request came to nothing. Both libraries wrap the reason into several
exceptions; the innermost one is what is said.
"""

from __future__ import annotations

import http.client
import re

import requests
import urllib3

from ..chat import redact_url
from ..errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ProtocolError,
    StreamError,
    StreamTimeout,
    TransportError,
)

__all__ = ["say", "translated"]


def translated(
    error: requests.exceptions.RequestException,
    connect_s: float,
    *,
    connecting: bool,
    overdue: bool,
) -> StreamError:
    """Turn an error of requests into ours; its text may hold the URL, which holds no key.

    Args:
        error: What requests raised.
        connect_s: How long the connection was allowed to take, in seconds.
        connecting: Whether it is known that there was no connection yet.
        overdue: Whether the connection was broken off because it was not ready in time.
    """
    known = requests.exceptions
    where = redact_url(error.request.url or "") if error.request is not None else "the server"
    reason = _innermost(error)
    said = say(error)
    late = (TimeoutError, urllib3.exceptions.ReadTimeoutError)  # the latter is none of the former
    timed_out = isinstance(error, known.ConnectTimeout) or (
        connecting and (isinstance(error, known.Timeout) or isinstance(reason, late))
    )
    if timed_out or overdue:
        return StreamTimeout(
            f"no connection to {where} within {connect_s} s (timeouts.connect_s)",
            phase="connect",
            limit_s=connect_s,
        )
    if isinstance(error, known.SSLError):
        retryable = "EOF" in said
        hint = "" if retryable else f"; {_tls_hint(said)}"
        return ConnectError(f"no secure connection to {where}: {said}{hint}", retryable=retryable)
    if isinstance(error, known.ProxyError):
        return ConnectError(
            f"no connection to {where} through the proxy: {said}; HTTP_PROXY, HTTPS_PROXY and "
            "NO_PROXY say which",
            retryable=re.search(r"failed: (?!408|429)[34]\d\d", said) is None,
        )
    if isinstance(error, known.ConnectionError):
        if isinstance(reason, urllib3.exceptions.NewConnectionError):
            return ConnectError(
                f"no connection to {where}: {reason.__cause__ or said}; is the address right and "
                "the server up?"
            )
        no_http = isinstance(reason, http.client.HTTPException) and not isinstance(reason, OSError)
        if connecting and no_http:  # nobody else says anything before that
            return ConnectError(
                f"no connection to {where}: the proxy does not answer in HTTP: {said}",
                retryable=False,
            )
        if connecting:
            return ConnectError(f"no connection to {where}: {said}")
        if no_http:
            return ProtocolError(
                f"{where} does not answer in HTTP ({type(reason).__name__}: {said}); is base_url "
                "right?"
            )
        return ConnectionLost(f"{where} closed the connection before it answered: {said}")
    if isinstance(error, (known.Timeout, known.ChunkedEncodingError)):
        return ConnectionLost(f"no answer from {where}: {said}")
    if isinstance(error, (known.RetryError, known.HTTPError)):  # the caller's own session's
        return TransportError(f"the session gave {where} up: {said}")
    hint = ""
    if isinstance(error, known.InvalidURL):  # base_url was checked before
        hint = "; is the proxy's address right (HTTP_PROXY, HTTPS_PROXY)?"
    return ConfigurationError(f"the request to {where} cannot be sent: {said}{hint}")


def _tls_hint(said: str) -> str:
    """Return what to do about a failed handshake."""
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER" in said:
        return "is this an http:// server?"
    if "expired" in said or "not yet valid" in said:
        return "is the machine's clock right?"
    if "not valid for" in said or "doesn't match" in said:
        return "is base_url right?"
    return "a private certificate authority can be named in REQUESTS_CA_BUNDLE"


def say(error: BaseException) -> str:
    """Return the innermost reason, in words and in one line."""
    reason = _innermost(error)
    if isinstance(reason, (urllib3.exceptions.IncompleteRead, http.client.IncompleteRead)):
        return "the body ended before its announced end"
    return " ".join(str(reason).split()) or type(reason).__name__


def _innermost(error: BaseException) -> BaseException:
    """Return the reason below what urllib3 and requests wrapped around it."""
    seen = {id(error)}
    while True:
        inner = next(
            (
                candidate
                for candidate in (
                    getattr(error, "reason", None),
                    getattr(error, "original_error", None),
                    *reversed(error.args),
                )
                if isinstance(candidate, BaseException) and id(candidate) not in seen
            ),
            None,
        )
        if inner is None:
            return error
        seen.add(id(inner))
        error = inner
