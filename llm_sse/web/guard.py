"""Who may ask the reference application: hosts, origins, the token; and what its pages may do.

A page of somebody else's must not spend this site's money, although a browser on this machine
reaches the loopback interface: a name that was rebound to it is no `Host` of ours, another site's
page is no `Origin` of ours, and browsers say (`Sec-Fetch-Site`) when a request comes from
elsewhere. Who is no browser sends none of these but `Host`.

A page may `GET` from anywhere without an `Origin`, and browsers say whose page it is only to sites
that nobody on the way can alter (TLS, loopback). So a `GET` that costs something needs the word
`same-origin`, or the token. A person at the address bar (`none`) is not enough: what he opens may
redirect him here, and the word stays the same.

Source: Fetch Metadata Request Headers (W3C), sections 2.4 and 3; Fetch (WHATWG), section 3.2;
Secure Contexts (W3C), section 3.1.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from .problem import Problem

__all__ = ["MIN_TOKEN_CHARS", "PAGE_HEADERS", "Guard", "is_loopback"]

#: The shortest token; 128 bits in hexadecimal digits have 32.
MIN_TOKEN_CHARS = 16

_TOKEN = re.compile(r"[!-~]+")
#: A host's name as browsers send it. Source: URL Standard (WHATWG), section 3.5.
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
#: The ports that browsers leave out. Source: URL Standard (WHATWG), section 4.2.
_PORTS = {"http": 80, "https": 443}
#: The words of `Sec-Fetch-Site` for the site's own pages, and for a person at the address bar.
_OWN_PAGE = "same-origin"
_HERE = (_OWN_PAGE, "none")

#: What goes with every response. The page's script may write text only, to this site only.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """The rules by which a request is let in.

    Args:
        token: What has to come as `Authorization: Bearer`; `None` asks for nothing.
        hosts: Names under which the site is reached, beside `localhost` and every address but
            `0.0.0.0`: only a name can be rebound.
        origins: Whose pages may ask, beside the site's own, such as `https://example.org`.

    Raises:
        ConfigurationError: One of them cannot be.
    """

    def __init__(
        self, *, token: str | None = None, hosts: Iterable[str] = (), origins: Iterable[str] = ()
    ) -> None:
        if token is not None and (len(token) < MIN_TOKEN_CHARS or not _TOKEN.fullmatch(token)):
            raise ConfigurationError(
                f"the token must have at least {MIN_TOKEN_CHARS} characters of visible ASCII"
            )
        self._token = None if token is None else token.encode()
        self._hosts = {"localhost", *map(_checked_host, hosts)}
        self._origins = set(map(_checked_origin, origins))

    @property
    def asks_token(self) -> bool:
        """Whether a token is needed."""
        return self._token is not None

    def refuse_host(self, host: str) -> Problem | None:
        """Return what is answered to a `Host` that is none of ours; `None` if it is."""
        name = _name_of(host)
        if name is not None and (name in self._hosts or _is_address(name)):
            return None
        return Problem(
            title="Misdirected Request",
            status=421,
            detail="This site is not known under that name.",
            code="unknown_host",
            retryable=False,
        )

    def refuse_origin(self, *, host: str, origin: str | None, site: str | None) -> Problem | None:
        """Return what is answered to another site's page; `None` if it may ask.

        Args:
            host: The request's `Host`.
            origin: Its `Origin`.
            site: Its `Sec-Fetch-Site`.
        """
        elsewhere = site not in (None, *_HERE)
        if origin in self._origins:
            return None
        own = origin in (None, f"http://{host}", f"https://{host}")
        if own and not elsewhere:
            return None
        return _forbidden("Pages of that origin may not ask here.", "unknown_origin")

    def refuse_get(self, *, origin: str | None, site: str | None) -> Problem | None:
        """Return what is answered to a `GET` that costs something and may be another site's page's.

        `refuse_origin` and `refuse_token` have let it in.

        Args:
            origin: The request's `Origin`.
            site: Its `Sec-Fetch-Site`.
        """
        if self.asks_token or origin is not None or site == _OWN_PAGE:
            return None
        return _forbidden("Only a page of this site's may ask so; ask by POST.", "unknown_origin")

    def refuse_token(self, authorization: str | None) -> Problem | None:
        """Return what is answered without the token; `None` if it is there, or not needed."""
        if self._token is None:
            return None
        scheme, _, given = (authorization or "").partition(" ")
        theirs = given.strip().encode("utf-8", "replace")
        if hmac.compare_digest(theirs, self._token) and scheme.lower() == "bearer":
            return None
        return Problem(
            title="Unauthorized",
            status=401,
            detail="The token is missing or wrong.",
            code="unauthorized",
            retryable=False,
        )

    def origin_headers(self, origin: str | None) -> dict[str, str]:
        """Return the headers that let an allowed origin's page read the answer."""
        if not self._origins:
            return {}
        headers = {"Vary": "Origin"}
        if origin in self._origins:
            headers["Access-Control-Allow-Origin"] = str(origin)
            headers["Access-Control-Expose-Headers"] = "Retry-After"
        return headers


def _forbidden(detail: str, code: str) -> Problem:
    return Problem(title="Forbidden", status=403, detail=detail, code=code, retryable=False)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str | None:
    """Return the name in a `Host`, in lower case and without the port."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port  # raises where it is none
    except ValueError:
        return None
    del port
    if parts.netloc != host or parts.username is not None:
        return None
    return (parts.hostname or "").rstrip(".")


def _is_address(name: str) -> bool:
    """Whether it is an address of something; `0.0.0.0` reaches this machine in disguise."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return not (getattr(address, "ipv4_mapped", None) or address).is_unspecified


def _checked_host(host: str) -> str:
    name = host.lower() if isinstance(host, str) else ""
    if name != _name_of(name) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            "a host is one name in ASCII, without a port, a wildcard or a dot at its end, such as "
            f"my.lan (xn--... where it has other letters), not {host!r}"
        )
    return name


def _checked_origin(origin: str) -> str:
    try:
        parts = urlsplit(origin)
        port = parts.port  # raises where it is none
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
        raise ConfigurationError(
            f"an origin is a scheme and a host, such as https://example.org, not {origin!r}"
        )
    if not parts.netloc or "@" in parts.netloc or parts.netloc != parts.netloc.lower():
        raise ConfigurationError(
            f"an origin has a host in lower case, and no user name; not {origin!r}"
        )
    host = parts.hostname or ""
    if not _NAME.fullmatch(host) and not _is_address(host):
        raise ConfigurationError(
            "an origin has one host's name in ASCII, without a wildcard (xn--... where it has "
            f"other letters), not {origin!r}"
        )
    # Browsers leave a scheme's own port out, and write others without zeros before them.
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (
        "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    )
