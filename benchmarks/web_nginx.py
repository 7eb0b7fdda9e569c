"""nginx before web servers, with what it does by default, and compression."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

from .web_processes import DEADLINE_S, Address, Protocol

__all__ = ["Nginx", "Upstream", "nginx_binary"]

# Nothing here turns buffering off: that is for the response's own headers to do. Without these
# headers it would be buffered, and compressed.
_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_types text/event-stream text/plain;
    gzip_min_length 0;
    gzip_proxied any;
    uwsgi_param REQUEST_METHOD $request_method;
    uwsgi_param REQUEST_URI $request_uri;
    uwsgi_param PATH_INFO $document_uri;
    uwsgi_param QUERY_STRING $query_string;
    uwsgi_param SERVER_PROTOCOL $server_protocol;
    uwsgi_param REMOTE_ADDR $remote_addr;
    uwsgi_param SERVER_NAME $server_name;
    uwsgi_param SERVER_PORT $server_port;
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""
_LOCATION = """
location /{name}/ {{
    rewrite ^/{name}(/.*)$ $1 break;
    {passed}
}}
"""


class Upstream(NamedTuple):
    """A server that nginx passes requests to.

    Attributes:
        address: Where it listens.
        protocol: What it is asked in.
    """

    address: Address
    protocol: Protocol


class Nginx:
    """nginx on a free loopback port, as the user who starts it.

    Args:
        folder: Where it keeps its configuration and whatever else it writes.
        upstreams: The servers; requests for `/name/...` go to the one of that name.
        log: Where what it says goes before it has read its configuration.

    Attributes:
        address: Where it listens.
    """

    def __init__(self, folder: Path, upstreams: Mapping[str, Upstream], log: IO[bytes]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address: Address = free.getsockname()
        locations = "".join(
            _LOCATION.format(name=name, passed=_passed(upstream))
            for name, upstream in upstreams.items()
        )
        (folder / "nginx.conf").write_text(
            _CONFIGURATION.format(
                folder=folder,
                port=self.address[1],
                # Root's workers would be nobody's, who may not enter the folder.
                user=f"user {getpass.getuser()};" if os.geteuid() == 0 else "",
                locations=locations,
            ),
            encoding="utf-8",
        )
        self._process = subprocess.Popen(
            [str(nginx_binary()), "-p", str(folder), "-c", "nginx.conf"], stdout=log, stderr=log
        )

    def wait(self) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection(self.address).close()
            except OSError:
                assert time.monotonic() < deadline, "nginx does not come up"
                assert self._process.poll() is None, "nginx refuses to come up"
                time.sleep(0.02)
            else:
                return

    def end(self) -> None:
        """Tell it to end, and wait until it has."""
        self._process.terminate()
        self._process.wait(DEADLINE_S)


def nginx_binary() -> str | None:
    """Return where nginx is, if it is installed; Debian has it where only root looks for it."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def _passed(upstream: Upstream) -> str:
    host, port = upstream.address
    if upstream.protocol == "uwsgi":
        return f"uwsgi_pass {host}:{port};"
    version = upstream.protocol.removeprefix("HTTP/")
    return f"proxy_http_version {version}; proxy_pass http://{host}:{port};"
