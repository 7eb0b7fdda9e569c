from __future__ import annotations

from typing import Any

import pytest

from llm_sse.errors import ConfigurationError
from llm_sse.web.guard import Guard, is_loopback

_TOKEN = "a-token-of-a-good-length"


class TestGuard:
    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:80", "127.0.0.1:8766", "[::1]:8766", "10.1.2.3", "my.lan."]
    )
    def test_our_names_and_every_address_are_hosts(self, host: str) -> None:
        """A page cannot make another site's address its own; it can only rebind its own name."""
        assert Guard(hosts=["my.lan"]).refuse_host(host) is None

    @pytest.mark.parametrize(
        "host",
        [
            *("", "evil.example", "localhost.evil.example", "a@localhost", "localhost/x"),
            *("localhost:x", "0.0.0.0:8766", "[::]:8766", "[::ffff:0.0.0.0]", "0"),
        ],
    )
    def test_another_name_is_none(self, host: str) -> None:
        """A rebound name is refused, what is no host at all, and loopback's disguise."""
        refusal = Guard(hosts=["my.lan"]).refuse_host(host)
        assert refusal is not None
        assert refusal.status == 421

    @pytest.mark.parametrize(
        ("origin", "site"),
        [
            (None, None),
            (None, "none"),
            (None, "same-origin"),
            ("http://localhost:8766", "same-origin"),
            ("http://localhost:8766", None),
            ("https://mine.example", "cross-site"),
        ],
    )
    def test_programs_and_known_pages_may_ask(self, origin: str | None, site: str | None) -> None:
        """Who is no browser sends neither header."""
        guard = Guard(origins=["https://mine.example"])
        assert guard.refuse_origin(host="localhost:8766", origin=origin, site=site) is None

    @pytest.mark.parametrize(
        ("origin", "site"),
        [
            (None, "cross-site"),
            (None, "same-site"),
            ("http://localhost:3000", "same-site"),
            ("https://evil.example", "cross-site"),
            ("https://evil.example", None),
            ("http://mine.example", None),
            ("null", None),
            ("", None),
            ("http://[bad", None),
            ("ftp://localhost:8766", None),
        ],
    )
    def test_other_pages_may_not(self, origin: str | None, site: str | None) -> None:
        """A picture whose address is a question is refused, too."""
        guard = Guard(origins=["https://mine.example"])
        refusal = guard.refuse_origin(host="localhost:8766", origin=origin, site=site)
        assert refusal is not None
        assert refusal.status == 403

    def test_a_get_that_costs_something_says_whose_it_is(self) -> None:
        """By the browser's word, by an origin that was let in, or by the token."""
        guard = Guard()
        assert guard.refuse_get(origin=None, site="same-origin") is None
        assert guard.refuse_get(origin="http://localhost", site=None) is None
        assert Guard(token=_TOKEN).refuse_get(origin=None, site=None) is None
        for site in (None, "none"):  # which is said of a redirect, too
            refusal = guard.refuse_get(origin=None, site=site)
            assert refusal is not None
            assert refusal.status == 403

    def test_the_token_has_to_come_as_bearer(self) -> None:
        """Neither a part of it, nor another scheme, nor nothing will do."""
        guard = Guard(token=_TOKEN)
        assert guard.refuse_token(f"Bearer {_TOKEN}") is None
        assert guard.refuse_token(f"bearer  {_TOKEN}") is None
        for wrong in (None, "", _TOKEN, f"Basic {_TOKEN}", f"Bearer {_TOKEN[:-1]}", "Bearer \xe9"):
            refusal = guard.refuse_token(wrong)
            assert refusal is not None
            assert refusal.status == 401

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"token": "short"}, "at least 16"),
            ({"token": "with a space in the middle"}, "visible ASCII"),
            ({"hosts": ["my.lan:80"]}, "without a port"),
            ({"hosts": [""]}, "without a port"),
            ({"hosts": ["*"]}, "wildcard"),
            ({"hosts": ["*.my.lan"]}, "wildcard"),
            ({"hosts": ["exa mple"]}, "one name"),
            ({"hosts": ["my.lan."]}, "dot at its end"),
            ({"hosts": ["m\xfcller.example"]}, "xn--"),
            ({"hosts": ["https://my.lan"]}, "one name"),
            ({"hosts": [None]}, "one name"),
            ({"origins": ["https://*.example"]}, "wildcard"),
            ({"origins": ["https://m\xfcller.example"]}, "xn--"),
            ({"origins": ["https://a.example:x"]}, "a scheme and a host"),
            ({"origins": ["https://exa mple"]}, "one host's name"),
            ({"origins": ["*"]}, "a scheme and a host"),
            ({"origins": ["https://a.example/"]}, "a scheme and a host"),
            ({"origins": ["http://[bad"]}, "a scheme and a host"),
            ({"origins": ["https://"]}, "a scheme and a host|a host in lower case"),
            ({"origins": ["https://A.example"]}, "lower case"),
        ],
    )
    def test_what_cannot_be_is_refused(self, wrong: Any, said: str) -> None:
        """The error says what is wrong, and not what the token is."""
        with pytest.raises(ConfigurationError, match=said) as caught:
            Guard(**wrong)
        assert "space" not in str(caught.value)

    @pytest.mark.parametrize(
        ("named", "sent"),
        [
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("https://a.example:", "https://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://10.1.2.3:3000", "http://10.1.2.3:3000"),
        ],
    )
    def test_an_origins_port_may_be_said(self, named: str, sent: str) -> None:
        """Browsers leave out the scheme's own; it is the same origin."""
        guard = Guard(origins=[named])
        assert guard.refuse_origin(host="localhost", origin=sent, site="cross-site") is None
        assert guard.origin_headers(sent)["Access-Control-Allow-Origin"] == sent

    def test_only_this_machine_is_loopback(self) -> None:
        """Names but `localhost` may be anything."""
        assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
        assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "my.lan", "")))
