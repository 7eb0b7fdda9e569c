"""A Django project in one file that streams from the provider that the request names."""

from __future__ import annotations

import sys
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, HttpResponseBase
from django.urls import path

from llm_sse import RetryPolicy, TokenStream, stream_sync
from llm_sse.events import Event, Finish, TextDelta
from llm_sse.web.django import asse_response, sse_response
from llm_sse.web.replay import MemoryReplay

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
    # All that could keep a token back is on.
    MIDDLEWARE=[
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()


def _stream(request: HttpRequest) -> tuple[TokenStream, dict[str, Any]]:
    asked = request.GET
    stream = stream_sync(
        "Hi", base_url=asked["base_url"], api_key="any", retry=RetryPolicy(max_retries=0)
    )
    return stream, {
        "format": asked.get("format", "tokens"),
        "status_wait_s": float(asked.get("status_wait_s", 10)),
        "heartbeat_s": float(asked.get("heartbeat_s", 0.2)),
    }


def sync_view(request: HttpRequest) -> HttpResponseBase:
    """Answer in the format that the request names."""
    stream, how = _stream(request)
    return sse_response(stream, **how)


async def async_view(request: HttpRequest) -> HttpResponseBase:
    """Do the same in an event loop."""
    stream, how = _stream(request)
    return await asse_response(stream, **how)


async def wrong_view(request: HttpRequest) -> HttpResponseBase:
    """Do what would block an event loop."""
    stream, how = _stream(request)
    return sse_response(stream, **how)


_replay = MemoryReplay()


def _from_database() -> list[Event]:
    with connection.cursor() as cursor:
        cursor.execute("select 42")
        return [TextDelta(f"It is {cursor.fetchone()[0]}."), Finish("stop")]


async def database_view(request: HttpRequest) -> HttpResponseBase:
    """Answer with what a function has found in the database."""
    kept: dict[str, Any] = {"replay": _replay, "key": "ann"} if "kept" in request.GET else {}
    return await asse_response(_from_database, request=request, **kept)


urlpatterns = [
    path("database", database_view),
    path("stream", sync_view),
    path("async", async_view),
    path("wrong", wrong_view),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
else:
    application = get_wsgi_application()
    asgi = get_asgi_application()
