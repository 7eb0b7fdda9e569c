from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.helpers import until
from tests.web.browser import Chromium, find_chromium
from tests.web.node import NotInstalled, Npm
from tests.web.redis_server import RedisServer, binary


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis."""
    if binary() is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of it, for one test."""
    with redis_server.client() as client:
        yield client
        until(lambda: not any(one.name.startswith("llm-sse-web") for one in threading.enumerate()))
        client.flushall()
        client.connection_pool.disconnect()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A real browser, for all tests."""
    paths = find_chromium()
    if paths is None:
        pytest.skip("chromium and chromedriver are not installed")
    chromium = Chromium(*paths, tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="session")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Npm:
    """Clients in JavaScript."""
    try:
        return Npm(tmp_path_factory.mktemp("npm"))
    except NotInstalled as error:
        pytest.skip(str(error))
