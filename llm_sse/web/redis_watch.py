"""How `redis` tells its writers that somebody reads."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import ServerError
from .replay import RETRY_AFTER_S, ReplayUnavailable

__all__ = ["Watch"]

_log = logging.getLogger("llm_sse.web.redis")


class Watch:
    """Tells the writers, wherever they are, that somebody reads: one thread for all readers here.

    Args:
        ask: Asks Redis.
        every_s: How often, in seconds.
        most: How many readers there may be.
    """

    def __init__(
        self, ask: Callable[[Callable[[Any], object]], object], every_s: float, most: int
    ) -> None:
        self._ask = ask
        self._every_s = every_s
        self._most = most
        self._news = threading.Condition()
        self._readers: Counter[str] = Counter()
        self._runs = False

    def add(self, name: str) -> None:
        """Count a reader.

        Raises:
            ServerError: There is no room for it.
        """
        with self._news:
            if self._readers.total() >= self._most:
                raise ServerError(
                    f"{self._most} responses are being read (max_readers)",
                    status=503,
                    retryable=True,
                    retry_after_s=RETRY_AFTER_S,
                )
            if not self._runs:
                threading.Thread(target=self._run, name="llm-sse-web-watch", daemon=True).start()
                self._runs = True
            self._readers[name] += 1

    def remove(self, name: str) -> None:
        """Count one less."""
        with self._news:
            self._readers[name] -= 1
            if not self._readers[name]:
                del self._readers[name]
            self._news.notify_all()

    def _announce(self, names: list[str], redis: Any) -> None:
        with redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.set(f"{name}:watched", 1, px=round(self._every_s * 3000))
            pipe.execute()

    def _run(self) -> None:
        while True:
            with self._news:
                names = list(self._readers)
            try:
                self._ask(partial(self._announce, names))
            except ReplayUnavailable:
                pass  # the next time
            except Exception as error:  # whatever it is, the next readers need this thread
                _log.warning("readers could not be announced: %s: %s", type(error).__name__, error)
            with self._news:
                self._news.wait_for(lambda: not self._readers, self._every_s)
                if not self._readers:
                    self._runs = False
                    return
