"""A Flask app that streams: `flask --app examples/flask_app.py run`."""

import flask

from llm_sse import stream_sync
from llm_sse.web.flask import sse_response

app = flask.Flask(__name__)


@app.post("/stream")
def stream() -> flask.Response:
    """Answer the prompt of a JSON body, token by token."""
    prompt = flask.request.get_json()["prompt"]
    return sse_response(stream_sync(prompt))
