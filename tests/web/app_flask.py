"""A Flask site that streams from the provider that the request names."""

from __future__ import annotations

import flask
from flask_compress import Compress

from llm_sse import RetryPolicy, stream_sync
from llm_sse.web.flask import sse_response

app = flask.Flask(__name__)
# All that could keep a token back is on.
app.config["COMPRESS_MIMETYPES"] = ["text/event-stream", "text/plain"]
Compress(app)


@app.get("/stream")
@app.post("/chat/completions")
def stream() -> flask.Response:
    """Answer in the format that the request names."""
    asked = flask.request.args
    return sse_response(
        stream_sync(
            "Hi",
            base_url=asked["base_url"],
            api_key="any",
            retry=RetryPolicy(max_retries=0),
        ),
        format=asked.get("format", "tokens"),
        status_wait_s=float(asked.get("status_wait_s", 10)),
        heartbeat_s=float(asked.get("heartbeat_s", 0.2)),
    )
