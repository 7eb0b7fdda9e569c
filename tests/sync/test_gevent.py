from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llm_sse.testing import FakeServer, say, stall
from tests.helpers import until

_ROOT = Path(__file__).parents[2]
#: Opens streams at the same time, closes the one that it is told to, and then waits to be ended.
_PROGRAM = """
import sys, warnings
from llm_sse import stream_sync
import llm_sse.sync.connection
from gevent import monkey
warnings.simplefilter("ignore")
monkey.patch_all()
import threading
streams = [stream_sync(str(number), base_url=sys.argv[1], api_key="any") for number in range(5)]
tokens = [iter(stream) for stream in streams]
readers = [threading.Thread(target=next, args=(one,)) for one in tokens]
for reader in readers:
    reader.start()
for reader in readers:
    reader.join()
streams[int(sys.stdin.readline())].close()
sys.stdin.readline()
"""


class TestGevent:
    def test_streams_do_not_share_connections_where_it_patches_late(
        self, server: FakeServer
    ) -> None:
        """A server that patches after it has imported the site: to close one stream ends that."""
        server.script(say("one"), stall())
        arguments = [sys.executable, "-c", _PROGRAM, server.base_url("openai")]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, cwd=_ROOT, text=True) as process:
            assert process.stdin is not None
            until(lambda: len(server.requests) == 5)
            process.stdin.write("2\n")
            process.stdin.flush()
            until(lambda: any(request.ended.is_set() for request in server.requests))
            ended = [
                request.json["messages"][-1]["content"]
                for request in server.requests
                if request.ended.is_set()
            ]
            assert ended == ["2"]
        assert all(request.ended.wait(5) for request in server.requests)
