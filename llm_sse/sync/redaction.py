"""What must not be shown, and how it is taken out of what is: texts, and bytes in pieces."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, unquote_plus, urlsplit
from urllib.request import getproxies

import msgspec

from ..chat import HTTPRequest

__all__ = [
    "MIN_KEY_CHARS",
    "SECRET_HEADER",
    "BytesRedaction",
    "Redaction",
    "secrets_in",
    "secrets_of",
]

#: Shorter texts are no real keys, and would be found in any message.
MIN_KEY_CHARS = 8

#: A part of a key that is shown by nobody's message on purpose: longer than a vendor's prefix.
_MIN_PART_CHARS = 12

#: A request's headers that hold secrets.
SECRET_HEADER = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)

#: The fields of a request's body, and of its URL's query, that hold secrets. `prompt_cache_key` is
#: none, and neither are `max_tokens`, an author and keywords.
_SECRET_FIELD = re.compile(
    r"authori[sz]ation|auth$|(?<!cache_)key$|token$|secret|cookie|passw(or)?d|credential",
    re.IGNORECASE,
)
#: What Azure calls its keys in a query.
_SECRET_IN_QUERY = frozenset({"code", "sig"})
#: The fields of a body that are the conversation: whoever records it records what was said.
_CONVERSATION = frozenset({"messages", "contents", "input"})


class Redaction:
    """Takes secrets out of texts, also where only a part of one is there; in linear time.

    Args:
        secrets: What must not be shown.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = list(secrets)
        size = _MIN_PART_CHARS
        short = sorted((one for one in known if len(one) <= size), key=len, reverse=True)
        self._short = re.compile("|".join(map(re.escape, short))) if short else None
        long = [secret for secret in known if len(secret) > size]
        self._parts = {one[at : at + size] for one in long for at in range(len(one) - size + 1)}
        letters = "".join(re.escape(letter) for letter in sorted(set("".join(long))))
        self._suspicious = re.compile(f"[{letters}]{{{size},}}") if long else None

    def __call__(self, text: str) -> str:
        """Return a text with `***` where a secret was."""
        kept: list[str] = []
        at = 0
        for start, end in self.spans(text):
            kept += text[at:start], "***"
            at = end
        return "".join((*kept, text[at:])) if kept else text

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where secrets stand: from the left to the right, and none within another."""
        long = self._long_spans(text)
        if self._short is None:
            return long
        found: list[tuple[int, int]] = []
        at = 0
        for start, end in (*long, (len(text), len(text))):
            found += (match.span() for match in self._short.finditer(text, at, start))
            found.append((start, end))
            at = end
        return found[:-1]

    def _long_spans(self, text: str) -> list[tuple[int, int]]:
        parts, size = self._parts, _MIN_PART_CHARS
        found: list[tuple[int, int]] = []
        if self._suspicious is None or len(text) < size:
            return found
        for run in self._suspicious.finditer(text):
            at, last = run.start(), run.end() - size
            while at <= last:
                start = at
                while text[at : at + size] in parts and at <= last:
                    at += 1
                if at > start:
                    at += size - 1
                    found.append((start, at))
                else:
                    at += 1
        return found


class BytesRedaction:
    """Takes secrets out of bytes that come in pieces, as they stand in JSON, a URL or a text.

    Args:
        secrets: What must not be shown.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            for form in (
                secret,
                json.dumps(secret)[1:-1],
                json.dumps(secret).replace("/", "\\/")[1:-1],
                json.dumps(secret, ensure_ascii=False)[1:-1],
                quote(secret, safe=""),
            ):
                forms.add(form.encode("utf-8", "replace").decode("latin-1"))
        self._redaction = Redaction(sorted(forms))
        self._letters = "".join(sorted(set("".join(forms))))
        self._longest = max(map(len, forms), default=0)

    def __call__(self, data: bytes) -> bytes:
        """Return bytes with `***` where a secret was."""
        return self._redaction(data.decode("latin-1")).encode("latin-1")

    def settled(self, data: bytes) -> int:
        """Return how many of these bytes can be judged, whatever may follow them.

        A secret that has begun at the end may go on in the next piece. It consists of its own
        letters only, so what stands before the last run of those is settled; of a run that is
        longer than any secret, all but the last bytes, or a little more or less so that no secret
        is cut in two.
        """
        text = data.decode("latin-1")
        start = len(text.rstrip(self._letters)) if self._letters else len(text)
        late = len(text) - self._longest
        if late <= start:
            return start
        for begin, end in self._redaction.spans(text):
            if begin < late < end:
                return self._beside(late, begin, end, len(text))
        return late

    def _beside(self, late: int, begin: int, end: int, size: int) -> int:
        """Return where to cut near `late`, which is within a secret that has `begin` and `end`."""
        if end < size:
            return end  # whatever follows, it ends there
        # It goes on, perhaps without an end, as a secret of one letter does: then both parts must
        # be long enough to be known for what they are.
        return late if late - begin >= _MIN_PART_CHARS <= end - late else begin


def secrets_of(key: str, headers: Mapping[str, str], request: HTTPRequest) -> list[str]:
    """Return what must never be shown: the key, and what the caller's own words hold of the kind.

    These are headers, the URL's query and the body. That is also each word of such a value (a
    scheme is too short to be a secret, a cookie has several), what `Basic` hides, and the login of
    a proxy in the environment.
    """
    values = [value for name, value in headers.items() if SECRET_HEADER.search(name)]
    values += secrets_in(request)
    words = [word for value in values for word in re.split(r"[\s;,=]+", value)]
    hidden: list[str] = []
    for value in values:
        scheme, _, encoded = value.partition(" ")
        if scheme.lower() == "basic":
            with suppress(ValueError):
                login = base64.b64decode(encoded).decode("utf-8", "replace")
                hidden += [login, login.partition(":")[2]]
    for proxy in getproxies().values():
        with suppress(ValueError):  # no address at all
            login = unquote(urlsplit(proxy).netloc.rpartition("@")[0])
            encoded = base64.b64encode(login.encode()).decode().rstrip("=")
            hidden += [login, login.partition(":")[2], encoded]
    found = [key, *values, *words, *hidden]
    return [secret for secret in dict.fromkeys(found) if len(secret) >= MIN_KEY_CHARS]


def secrets_in(request: HTTPRequest) -> list[str]:
    """Return the texts in a request's query and body whose names say that they are secrets."""
    found: list[str] = []
    for part in urlsplit(request.url).query.split("&"):
        name, _, value = part.partition("=")
        if _SECRET_FIELD.search(unquote(name)) or name.lower() in _SECRET_IN_QUERY:
            found += value, unquote_plus(value)
    fields: dict[str, msgspec.Raw] = {}
    with suppress(msgspec.DecodeError):  # no object, so nobody's names are in it
        fields = msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])
    todo: list[Any] = [
        {name: msgspec.json.decode(raw)}
        for name, raw in fields.items()
        if name not in _CONVERSATION
    ]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            todo += value.values()
            named = ((name, one) for name, one in value.items() if _SECRET_FIELD.search(name))
            found += (one for _, one in named if isinstance(one, str))
    return found
