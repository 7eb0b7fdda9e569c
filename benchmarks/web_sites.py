"""All web servers at once, and nginx before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .web_nginx import Nginx, Upstream, nginx_binary
from .web_processes import SERVERS, Address, Protocol, Server, ServerProcess

__all__ = ["Sites", "sites_up"]


class Sites:
    """Servers that come up side by side, and are waited for when they are needed.

    Args:
        folder: Where they write to.
        servers: Which of them, by name.
        stack: What ends them.
    """

    def __init__(self, folder: Path, servers: Mapping[str, Server], stack: ExitStack) -> None:
        self._processes: dict[str, ServerProcess] = {}
        for name, server in servers.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            self._processes[name] = ServerProcess(server.command, log)
            stack.callback(self._processes[name].join)
        for process in self._processes.values():
            stack.callback(process.end)
        self._nginx: Nginx | None = None
        if nginx_binary() is not None:
            upstreams = {
                _location(name, protocol): Upstream(self._processes[name].address, protocol)
                for name, server in servers.items()
                for protocol in server.protocols
            }
            (folder / "nginx").mkdir()
            log = stack.enter_context((folder / "nginx.log").open("wb"))
            self._nginx = Nginx(folder / "nginx", upstreams, log)
            stack.callback(self._nginx.end)

    def find(self, name: str, view: str, through: Protocol | None = None) -> tuple[Address, str]:
        """Return the address and the path of a view, when all that is needed for it is up.

        Args:
            name: The server's name.
            view: The view's path.
            through: What nginx asks the server in; `None` without nginx.
        """
        process = self._processes[name]
        process.wait()
        if through is None:
            return process.address, view
        assert self._nginx is not None, "nginx is not installed"
        self._nginx.wait()
        return self._nginx.address, f"/{_location(name, through)}{view}"


@contextmanager
def sites_up(folder: Path, servers: Mapping[str, Server] = SERVERS) -> Iterator[Sites]:
    """Start servers, and end them."""
    with ExitStack() as stack:
        yield Sites(folder, servers, stack)


def _location(name: str, protocol: Protocol) -> str:
    return f"{name}-{protocol.replace('/', '-').lower()}"
