"""How providers say no: the shapes of their errors, their words, and the headers beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from ..sse import SSEDecoder

__all__ = [
    "QUOTA_CODES",
    "decode_body",
    "error_text",
    "is_listed_error",
    "is_unknown_model",
    "request_id",
    "retry_after_s",
    "status_in",
]

#: Codes that mean "no more money", not "not so fast".
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "quota_exceeded"})

#: How servers say that a model does not exist: by a code, or in their own words.
_MODEL_CODES = frozenset({"model_not_found", "DeploymentNotFound", "invalid_model"})
_NO_MODEL = re.compile(r"\bmodel\b.{0,200}?\bnot (exist|found)|not a valid model", re.I | re.S)
_HINT_CHARS = 2000


def is_unknown_model(status: int, message: str, code: str | None) -> bool:
    """Whether an error says that the model does not exist."""
    return code in _MODEL_CODES or (
        status in (400, 404) and _NO_MODEL.search(message[:_HINT_CHARS]) is not None
    )


def status_in(word: Any, statuses: Mapping[str, int]) -> int | None:
    """Return the HTTP status that an error's code, type or number stands for inside a stream.

    Args:
        word: The code, type or number.
        statuses: What the format's own words stand for.
    """
    if isinstance(word, str) and re.fullmatch("[0-9]{3}", word):
        word = int(word)
    if isinstance(word, int) and 400 <= word < 600:
        return word
    return statuses.get(word) if isinstance(word, str) else None


def error_text(error: Any) -> tuple[str, str | None]:
    """Find the message and the code in an error object, whatever its shape.

    Source: the shapes that OpenAI, Azure, Anthropic, Google, Mistral, xAI, vLLM, Hugging Face and
    others have been seen to send.
    """
    inner = error
    while isinstance(inner, dict) or (isinstance(inner, list) and inner):
        error = inner[0] if isinstance(inner, list) else inner
        inner = error.get("error") if isinstance(error, dict) else None
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return "", None
    if isinstance(inner, str):
        code = error.get("code") or error.get("error_type")
        return inner, str(code) if code else None
    for name in ("message", "detail", "msg", "error_message"):
        if value := error.get(name):
            message = value if isinstance(value, str) else _as_text(value)
            break
    else:
        message = _as_text(error)[:500]
    codes = [error[name] for name in ("code", "type", "status") if error.get(name)]
    # llama.cpp and vLLM have the HTTP status for a code, and the word for the error in the type.
    words = [code for code in codes if isinstance(code, str) and not code.isdecimal()]
    code = next(iter([*words, *codes]), None)
    return message, None if code is None else str(code)


def _as_text(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError:
        return "(nested too deeply to be shown)"


def is_listed_error(value: Any) -> bool:
    """Whether a value is an error in the list that Google's servers like to put it in."""
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and bool(value[0].get("error"))
    )


def decode_body(body: bytes) -> Any:
    """Decode an error's body: JSON; the JSON in an event stream's first event; or text."""
    first = SSEDecoder().feed(body.lstrip() + b"\n\n")[:1]
    candidates: list[bytes | str] = [body, *(sse.data for sse in first)]
    for candidate in candidates:
        try:
            return msgspec.json.decode(candidate)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
    return body.decode("utf-8", "replace").strip()[:2000]


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the identifier under which the provider knows a request."""
    for name in ("x-request-id", "request-id", "apim-request-id", "x-goog-request-id", "cf-ray"):
        if name in headers:
            return headers[name]
    return None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the headers ask to wait, in seconds; the longest where they disagree.

    A date is read against the response's own `Date`, so that nobody's clock has to be right.

    Source: RFC 9110 section 10.2.3; `retry-after-ms` is OpenAI's and Azure's,
    `llm_provider-retry-after` LiteLLM's.
    """
    waits: list[float] = []
    for name, unit_s in (
        ("retry-after-ms", 0.001),
        ("retry-after", 1.0),
        ("llm_provider-retry-after", 1.0),
    ):
        value = headers.get(name)
        if not value:
            continue
        try:
            waits.append(float(value) * unit_s)
        except ValueError:
            try:
                now = parsedate_to_datetime(headers.get("date", ""))
                waits.append((parsedate_to_datetime(value) - now).total_seconds())
            except (ValueError, TypeError):
                continue
    usable = [wait for wait in waits if 0 <= wait < float("inf")]
    return max(usable, default=None)
