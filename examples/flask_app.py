"""A Flask app that streams: `flask --app examples/flask_app.py run`."""

import flask
from werkzeug.exceptions import BadRequest

from llm_sse import stream_sync
from llm_sse.web.flask import sse_response

app = flask.Flask(__name__)


@app.post("/stream")
def stream() -> flask.Response:
    """Answer the prompt of a JSON body, token by token."""
    match flask.request.get_json():
        case {"prompt": str(prompt)} if 0 < len(prompt) <= 10_000:
            return sse_response(stream_sync(prompt))
    raise BadRequest("there is no prompt, or too much of it")
