"""`python -m llm_sse` is the command `llm-sse`."""

from .cli import main

main()
