"""`consume_stream()`: the client of a view that `llm_sse.web` made."""

from __future__ import annotations

from typing import Any

from ..chat import check_base_url
from ..errors import ConfigurationError
from ..providers import View, find_provider
from ..retry import RetryPolicy
from .ask import stream_sync
from .stream import TokenStream

__all__ = ["consume_stream"]

_ROW = "sse-view"


def consume_stream(
    url: str, prompt: str | None = None, *, send_as: str = "json", **arguments: Any
) -> TokenStream:
    """Ask a view that streams with `sse_response`, in the format `tokens` or `events`.

    The same stream comes back as from any provider, with the same errors: what the view answers
    with a status or with an `error` event is an `APIError`, a body that ends before its `[DONE]` a
    `ConnectionLost`. Where the view keeps its streams (`replay=`), a connection that broke goes on
    where it was, unless `retry` says otherwise; where it does not, the error is raised.

    Args:
        url: The view's address, without a query.
        prompt: The question.
        send_as: How the question goes: `json` (POST, `{"prompt": ...}`), `form` (POST) or `query`
            (GET, `?prompt=...`). What else is asked stands beside it, by its name here.
        arguments: Those of `stream_sync`: `messages`, `model`, `extra_body` for what else the view
            takes, `headers`, `api_key` (as a bearer token), `session`, `timeouts`, `retry`.

    Raises:
        ConfigurationError: Something is missing or wrong; nothing was sent.
    """
    for name in ("provider", "base_url", "fallback"):
        if name in arguments:
            raise ConfigurationError(f"consume_stream asks the view at its url; leave {name}= out")
    where = check_base_url(url, "url")
    row = find_provider(_ROW)
    if not isinstance(row, View):
        raise ConfigurationError(f"the row {_ROW!r} was replaced by one that is no View")
    row = row.replace(send_as=send_as, slash=url.endswith("/"))
    if arguments.get("retry") is None:
        arguments["retry"] = RetryPolicy(resume=True)
    return stream_sync(prompt, provider=row, base_url=where, **arguments)
