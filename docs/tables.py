"""Write the tables of docs/reference/providers.md from the rows: `python docs/tables.py`."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm_sse import Tool, file_part, image_part
from llm_sse.chat import make_chat
from llm_sse.errors import ConfigurationError
from llm_sse.providers import PROVIDERS, OpenAI, Provider
from llm_sse.response_format import read_format

PAGE = Path(__file__).parent / "reference" / "providers.md"


def main() -> None:
    """Bring the page up to date."""
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")


def written(page: str) -> str:
    """Return the page with the tables as the rows have them now."""
    tables = {"providers": providers(), "features": features(), "gateways": gateways()}
    for name, table in tables.items():
        begin, end = f"<!-- {name}: python docs/tables.py -->\n", f"<!-- {name}: end -->"
        before, begun, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise SystemExit(f"{PAGE} lacks the marks of {name!r}")
        page = f"{before}{begin}\n{table}\n\n{end}{after}"
    return page


def providers() -> str:
    """Return the table of all rows: who they are, and where their settings come from."""
    titles = (
        "`provider=`",
        "format",
        "default model",
        "key",
        "model from",
        "server from",
        "server",
    )
    return _table(titles, (_provider(row) for row in PROVIDERS.values()))


def _provider(row: Provider) -> Iterable[str]:
    keys = ", ".join(map(_code, row.key_env)) + ("" if row.needs_key else " (not needed)")
    server = _code(row.base_url_env)
    if row.base_url_suffix:
        server += f" + {_code(row.base_url_suffix)}"
    model = _code(row.model) if row.model else "-"
    address = _code(row.base_url) if row.base_url else "-"
    variables = (_code(row.model_env), server)
    return (_code(row.name), row.format, model, keys, *variables, address, row.checked or "-")


def features() -> str:
    """Return the table of what can be asked of whom: every row is asked to write the request."""
    rows = (
        [_code(row.name), *(_feature(row, asked) for asked in _FEATURES.values())]
        for row in PROVIDERS.values()
    )
    return _table(("`provider=`", *_FEATURES), rows)


def _feature(row: Provider, asked: dict[str, Any]) -> str:
    chat = make_chat(None, model="m", **{"messages": [_says("Hi")], **asked})
    try:
        row.request(chat, "key", "https://host")
    except ConfigurationError:
        return "-"
    if isinstance(row, OpenAI) and not row.json_schema and chat.response_format is not None:
        return "as instructions"
    return "yes"


def _says(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


_PICTURE = base64.b64decode("iVBORw0KGgo=")  # what a PNG begins with
_SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}

#: What may be asked of a provider, under the name that it has in the table.
_FEATURES: dict[str, dict[str, Any]] = {
    "whole answer": {"stream": False},
    "tools": {"tools": [Tool("f")]},
    "picture's bytes": {"messages": [_says([image_part(_PICTURE)])]},
    "picture's address": {"messages": [_says([image_part("https://host/a.png")])]},
    "document's bytes": {"messages": [_says([file_part(b"%PDF-1.7", filename="a.pdf")])]},
    "sound": {"messages": [_says([_SOUND])]},
    "JSON Schema": {"response_format": read_format(_SCHEMA)},
    "log-probabilities": {"logprobs": 0},
}


def gateways() -> str:
    """Return the table of what differs between the rows that speak Chat Completions."""
    titles = ("`provider=`", "key's header", "limit of the answer", "usage", "gets back")
    rows = (row for row in PROVIDERS.values() if isinstance(row, OpenAI))
    return _table(titles, map(_gateway, rows))


def _gateway(row: OpenAI) -> Iterable[str]:
    return (
        _code(row.name),
        _code(row.auth_header),
        _code(row.max_tokens_field),
        "asked for" if row.ask_usage else "comes unasked",
        ", ".join(map(_code, row.wants_back)) or "-",
    )


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    main()
