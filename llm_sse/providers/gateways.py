"""Rows of servers that speak Chat Completions, too: gateways, other vendors, local servers.

What differs between them is data: where they are, whose key they take, what they call the limit of
an answer, and what they want back of an assistant's turn. The rest is leniency in the decoder.

A default model stands here only where the vendor keeps an alias alive that always means a current
one. `base_url_suffix` is what a vendor's own SDK adds to the address that its variable holds.

Sources, beside each vendor's own pages: the type files of their SDKs.
"""

from __future__ import annotations

from .openai import OpenAI

__all__ = ["GATEWAYS"]

_CHECKED = "2026-11-22"

#: In the order in which they are listed to people: clouds, then the compatible endpoints of those
#: who have a format of their own, then what runs on one's own machine.
GATEWAYS = (
    # https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle; a model is a
    # deployment there, so nobody can have a default.
    OpenAI(
        "azure",
        telemetry_name="azure.ai.openai",
        checked=_CHECKED,
        key_env=("AZURE_OPENAI_API_KEY",),
        model_env="AZURE_OPENAI_MODEL",
        base_url_env="AZURE_OPENAI_ENDPOINT",
        base_url_suffix="/openai/v1",
        auth_header="api-key",
        auth_prefix="",
        call_ids=".{1,40}",
    ),
    # https://docs.mistral.ai/api; it refuses `stream_options` (422), and tells the usage unasked.
    OpenAI(
        "mistral",
        telemetry_name="mistral_ai",
        base_url="https://api.mistral.ai/v1",
        model="mistral-medium-latest",
        call_ids="[a-zA-Z0-9]{9}",
        checked=_CHECKED,
        max_tokens_field="max_tokens",
        ask_usage=False,
    ),
    # https://console.groq.com/docs/openai
    OpenAI(
        "groq",
        base_url="https://api.groq.com/openai/v1",
        checked=_CHECKED,
        base_url_suffix="/openai/v1",
    ),
    # https://api-docs.deepseek.com/guides/thinking_mode; it refuses a turn with calls that comes
    # back without its reasoning, which may be empty.
    OpenAI(
        "deepseek",
        base_url="https://api.deepseek.com",
        model="deepseek-flash",
        checked=_CHECKED,
        json_schema=False,
        max_tokens_field="max_tokens",
        wants_back=("reasoning_content",),
    ),
    # https://openrouter.ai/docs
    OpenAI(
        "openrouter",
        base_url="https://openrouter.ai/api/v1",
        model="openrouter/auto",
        checked=_CHECKED,
        max_tokens_field="max_tokens",
        wants_back=("reasoning_details",),
    ),
    # https://docs.together.ai/docs/openai-api-compatibility
    OpenAI(
        "together",
        base_url="https://api.together.ai/v1",
        checked=_CHECKED,
        max_tokens_field="max_tokens",
    ),
    # https://docs.fireworks.ai/tools-sdks/openai-compatibility
    OpenAI(
        "fireworks",
        base_url="https://api.fireworks.ai/inference/v1",
        checked=_CHECKED,
        max_tokens_field="max_tokens",
    ),
    # https://docs.x.ai/docs/api-reference
    OpenAI("xai", telemetry_name="x_ai", base_url="https://api.x.ai/v1"),
    # https://inference-docs.cerebras.ai/resources/openai
    OpenAI(
        "cerebras",
        base_url="https://api.cerebras.ai/v1",
        base_url_suffix="/v1",
    ),
    # https://docs.perplexity.ai/docs/sonar/openai-compatibility; every chunk has the usage.
    OpenAI(
        "perplexity",
        base_url="https://api.perplexity.ai",
        model="sonar",
        checked=_CHECKED,
        max_tokens_field="max_tokens",
        ask_usage=False,
    ),
    # https://huggingface.co/docs/inference-providers
    OpenAI(
        "huggingface",
        base_url="https://router.huggingface.co/v1",
        checked=_CHECKED,
        key_env=("HF_TOKEN",),
        max_tokens_field="max_tokens",
    ),
    # https://docs.api.nvidia.com/nim/reference
    OpenAI(
        "nvidia",
        base_url="https://integrate.api.nvidia.com/v1",
        max_tokens_field="max_tokens",
    ),
    # https://docs.sambanova.ai
    OpenAI(
        "sambanova",
        base_url="https://api.sambanova.ai/v1",
        max_tokens_field="max_tokens",
    ),
    # https://platform.moonshot.ai/docs; thinking models refuse a call without its reasoning.
    OpenAI(
        "moonshot",
        telemetry_name="moonshot_ai",
        base_url="https://api.moonshot.ai/v1",
        max_tokens_field="max_tokens",
        wants_back=("reasoning_content",),
    ),
    # https://docs.z.ai/guides/capabilities/thinking-mode
    OpenAI(
        "zai",
        base_url="https://api.z.ai/api/paas/v4",
        checked=_CHECKED,
        json_schema=False,
        max_tokens_field="max_tokens",
        wants_back=("reasoning_content",),
    ),
    # https://ai.google.dev/gemini-api/docs/openai; a call's signature must come back with it.
    OpenAI(
        "gemini-openai",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        model="gemini-flash-latest",
        checked=_CHECKED,
        key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        model_env="GEMINI_MODEL",
        wants_back=("extra_content",),
    ),
    # https://platform.claude.com/docs/en/api/openai-sdk
    OpenAI(
        "anthropic-openai",
        base_url="https://api.anthropic.com/v1",
        model="claude-sonnet-5-5",
        checked=_CHECKED,
        key_env=("ANTHROPIC_API_KEY",),
        model_env="ANTHROPIC_MODEL",
    ),
    # https://docs.ollama.com/api/openai-compatibility
    OpenAI(
        "ollama-openai",
        base_url="http://127.0.0.1:11434/v1",
        model="gemma4",
        checked=_CHECKED,
        key_env=("OLLAMA_API_KEY",),
        model_env="OLLAMA_MODEL",
        needs_key=False,
        max_tokens_field="max_tokens",
    ),
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html; the name counts there.
    OpenAI(
        "vllm",
        base_url="http://127.0.0.1:8000/v1",
        checked=_CHECKED,
        needs_key=False,
        max_tokens_field="max_tokens",
    ),
    # https://github.com/ggml-org/llama.cpp/tree/master/tools/server; with one model loaded it
    # answers to any name.
    OpenAI(
        "llamacpp",
        base_url="http://127.0.0.1:8080/v1",
        model="default",
        checked=_CHECKED,
        key_env=("LLAMACPP_API_KEY", "LLAMA_API_KEY"),
        needs_key=False,
        max_tokens_field="max_tokens",
    ),
    # https://lmstudio.ai/docs/developer/openai-compat; the name counts there.
    OpenAI(
        "lmstudio",
        base_url="http://127.0.0.1:1234/v1",
        checked=_CHECKED,
        key_env=("LM_API_TOKEN",),
        needs_key=False,
        max_tokens_field="max_tokens",
    ),
    # https://docs.litellm.ai/docs/proxy/user_keys; it needs a key if it was started with one.
    OpenAI(
        "litellm",
        base_url="http://127.0.0.1:4000/v1",
        key_env=("LITELLM_PROXY_API_KEY", "LITELLM_API_KEY"),
        base_url_env="LITELLM_PROXY_API_BASE",
        needs_key=False,
        max_tokens_field="max_tokens",
    ),
)
