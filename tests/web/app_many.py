"""A Flask site whose view any page may read: each question is the provider's address and a name."""

from __future__ import annotations

import flask

from llm_sse import stream_sync
from llm_sse.web.flask import sse_response

app = flask.Flask(__name__)


@app.get("/stream")
def stream() -> flask.Response:
    """Answer a question."""
    asked = flask.request.args
    response = sse_response(stream_sync(asked["prompt"], base_url=asked["base_url"], api_key="any"))
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response
