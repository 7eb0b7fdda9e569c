"""A Gradio app that streams: `python examples/gradio_app.py`."""

from collections.abc import Iterator

import gradio as gr

from llm_sse import StreamError, stream_sync


def chat(message: str, history: list[dict[str, str]]) -> Iterator[str]:
    """Yield the answer as far as it has come, each time that a token has."""
    text = ""
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in history]
    try:
        for token in stream_sync(message, messages=turns):
            text += token
            yield text
    except StreamError as error:
        raise gr.Error(str(error)) from error


demo = gr.ChatInterface(chat, title="Ask a model")

if __name__ == "__main__":
    demo.launch()
