"""A Streamlit page that streams: `streamlit run examples/streamlit_page.py`."""

import streamlit as st

from llm_sse import StreamError, stream_sync

st.title("Ask a model")
if prompt := st.chat_input("Your question"):
    st.chat_message("user").text(prompt)
    with st.chat_message("assistant"):
        try:
            st.write_stream(iter(stream_sync(prompt)))
        except StreamError as error:
            st.error(str(error))
