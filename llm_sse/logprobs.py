"""Log-probabilities in the shape that Chat Completions, Responses and Ollama share.

    {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": [{"token", "logprob"}]}

Source: https://platform.openai.com/docs/api-reference/chat/object (`logprobs`)
"""

from __future__ import annotations

from typing import Any

from .events import Event, Logprobs, TokenLogprob, Unknown

__all__ = ["says_something", "token_object", "token_of", "tokens_event", "tokens_of"]

#: What OpenAI writes for a token that is too unlikely; JSON has no infinity.
#: Source: https://platform.openai.com/docs/api-reference/chat/object (`logprob`)
UNLIKELY = -9999.0
#: How a token is called; without a number beside it that says nothing.
_NAMES = frozenset({"bytes", "token", "tokenId", "token_id"})


def tokens_event(kind: str, raw: Any) -> list[Event]:
    """Return the event for a list of tokens; what is no such list is told as it is.

    Objects full of nulls, which some servers send unasked, are no event.
    """
    tokens = tokens_of(raw)
    if tokens:
        return [Logprobs(tokens)]
    return [Unknown(kind, raw)] if says_something(raw) else []


def tokens_of(raw: Any) -> tuple[TokenLogprob, ...]:
    """Read the tokens in a list; leave out what has no text or no number.

    Among tokens that have numbers one with `null` has a probability of zero: JSON has no word for
    its logarithm, minus infinity, and some servers write `null` for it.
    """
    if not isinstance(raw, list):
        return ()
    if any(token_of(one) is not None for one in raw):
        raw = [_with_number(one) for one in raw]
    return tuple(token for one in raw if (token := token_of(one)) is not None)


def _with_number(raw: Any) -> Any:
    if isinstance(raw, dict) and raw.get("token") and raw.get("logprob", 0) is None:
        return {**raw, "logprob": UNLIKELY}
    return raw


def token_of(raw: Any) -> TokenLogprob | None:
    """Read one token, with its alternatives."""
    if not isinstance(raw, dict):
        return None
    text, number = raw.get("token"), raw.get("logprob")
    if not isinstance(text, str) or isinstance(number, bool):
        return None
    if not isinstance(number, (int, float)):
        return None
    if number == float("-inf"):
        number = UNLIKELY
    return TokenLogprob(text, number, _bytes(raw.get("bytes")), tokens_of(raw.get("top_logprobs")))


def _bytes(raw: Any) -> bytes | None:
    try:
        return bytes(raw) if isinstance(raw, list) else None
    except (TypeError, ValueError):
        return None


def says_something(raw: Any) -> bool:
    """Whether there is anything in a JSON value but nulls, tokens' names and what is empty."""
    todo = [raw]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += [inner for name, inner in value.items() if name not in _NAMES]
        elif isinstance(value, list):
            todo += value
        elif value is not None and value != "":
            return True
    return False


def token_object(token: TokenLogprob) -> dict[str, Any]:
    """Write one token, with its alternatives."""
    return {
        "token": token.token,
        "logprob": token.logprob,
        "bytes": None if token.bytes is None else list(token.bytes),
        "top_logprobs": [token_object(other) for other in token.top],
    }
