"""`llm-sse providers`."""

from __future__ import annotations

import msgspec

from llm_sse.providers import PROVIDERS
from tests.cli.command import KEY, invoke


def test_the_table_of_providers() -> None:
    """`providers` lists names, models, servers and keys; what the environment changed is marked."""
    env = {"OPENAI_MODEL": "[b]mine", "GOOGLE_API_KEY": KEY, "COLUMNS": "150"}
    result = invoke("providers", OPENAI_BASE_URL="https://me:secret@here/v1", **env)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["openai", "[b]mine", "https://***@here/v1", "OPENAI_API_KEY", "unset"]
    assert lines[2] == ["(from", "OPENAI_MODEL)", "(from", "OPENAI_BASE_URL)"]
    assert lines[3][0] == "openai-responses"
    assert lines[5] == [
        *("anthropic", PROVIDERS["anthropic"].model, "https://api.anthropic.com"),
        *("ANTHROPIC_API_KEY", "unset"),
    ]
    assert lines[6][-2:] == ["GEMINI_API_KEY", "unset"]
    assert lines[7] == ["GOOGLE_API_KEY", "set"]
    assert lines[8] == ["ollama", "gemma4", "http://127.0.0.1:11434", "OLLAMA_API_KEY", "unset"]


def test_the_table_fits_a_narrow_terminal() -> None:
    """On 80 columns the address stands below the model."""
    lines = invoke("providers", COLUMNS="80").stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [["model"], ["provider", "base", "URL", "keys"]]
    place = next(at for at, line in enumerate(lines) if line.startswith("openrouter "))
    assert lines[place].split()[:3] == ["openrouter", "openrouter/auto", "OPENROUTER_API_KEY"]
    assert lines[place + 1].split() == ["https://openrouter.ai/api/v1"]
    assert max(map(len, lines)) <= 80


def test_the_providers_as_json() -> None:
    """`providers --json` has the same for machines."""
    result = invoke("providers", "--json", ANTHROPIC_MODEL="mine", ANTHROPIC_API_KEY=KEY)
    rows = {row["name"]: row for row in msgspec.json.decode(result.stdout)}
    assert list(rows) == list(PROVIDERS)
    assert rows["anthropic"] == {
        "name": "anthropic",
        "model": "mine",
        "model_from": "ANTHROPIC_MODEL",
        "base_url": "https://api.anthropic.com",
        "base_url_from": None,
        "keys": {"ANTHROPIC_API_KEY": True},
    }
    assert rows["gemini"]["keys"] == {"GEMINI_API_KEY": False, "GOOGLE_API_KEY": False}
    assert (rows["azure"]["model"], rows["azure"]["base_url"]) == (None, None)
