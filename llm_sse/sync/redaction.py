"""What must not be shown, and how it is taken out of what is: texts, and bytes in pieces."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies

__all__ = ["MIN_KEY_CHARS", "SECRET_HEADER", "BytesRedaction", "Redaction", "secrets_of"]

#: Shorter texts are no real keys, and would be found in any message.
MIN_KEY_CHARS = 8

#: A part of a key that is shown by nobody's message on purpose: longer than a vendor's prefix.
_MIN_PART_CHARS = 12

#: A request's headers that hold secrets.
SECRET_HEADER = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)


class Redaction:
    """Takes secrets out of texts, also where only a part of one is there; in linear time.

    Args:
        secrets: What must not be shown.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = list(secrets)
        size = _MIN_PART_CHARS
        self._short = [secret for secret in known if len(secret) <= size]
        long = [secret for secret in known if len(secret) > size]
        self._parts = {one[at : at + size] for one in long for at in range(len(one) - size + 1)}
        letters = "".join(re.escape(letter) for letter in sorted(set("".join(long))))
        self._suspicious = re.compile(f"[{letters}]{{{size},}}") if long else None

    def __call__(self, text: str) -> str:
        """Return a text with `***` where a secret was."""
        if self._suspicious is not None and len(text) >= _MIN_PART_CHARS:
            text = self._suspicious.sub(self._clean, text)
        for secret in self._short:
            text = text.replace(secret, "***")
        return text

    def _clean(self, suspicious: re.Match[str]) -> str:
        run, parts, size = suspicious[0], self._parts, _MIN_PART_CHARS
        kept: list[str] = []
        start = at = 0
        while at + size <= len(run):
            if run[at : at + size] not in parts:
                at += 1
                continue
            kept += run[start:at], "***"
            while run[at : at + size] in parts:
                at += 1
            start = at = at + size - 1
        return "".join((*kept, run[start:]))


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
        longer than any secret, all but the last bytes.
        """
        text = data.decode("latin-1")
        start = len(text.rstrip(self._letters)) if self._letters else len(text)
        late = len(text) - self._longest
        if late <= start:
            return start
        clean = self._redaction
        return late if clean(text[:late]) + clean(text[late:]) == clean(text) else start


def secrets_of(key: str, headers: Mapping[str, str]) -> list[str]:
    """Return what must never be shown: the key, and what the caller's own headers hold of the kind.

    That is also each word of such a header (a scheme is too short to be a secret, a cookie has
    several), what `Basic` hides, and the login of a proxy in the environment.
    """
    values = [value for name, value in headers.items() if SECRET_HEADER.search(name)]
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
