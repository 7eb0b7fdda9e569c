"""Write the tables of docs/reference/providers.md from the rows: `python docs/tables.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llm_sse.providers import PROVIDERS, OpenAI, Provider

PAGE = Path(__file__).parent / "reference" / "providers.md"


def main() -> None:
    """Bring the page up to date."""
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")


def written(page: str) -> str:
    """Return the page with the tables as the rows have them now."""
    for name, table in (("providers", providers()), ("gateways", gateways())):
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
