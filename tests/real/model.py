"""A model of a few kilobytes that says what it is told: the words of a chain, one after the other.

Its one layer adds nothing to what goes through it, so that the next token depends on the last one
only: the output row of each token is the embedding of the token before it. Embeddings are random
(with a fixed seed), so they are nearly orthogonal: the chain's next word is by far the likeliest.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import gguf
import numpy as np

__all__ = ["ENDLESS", "SAYS", "write_model"]

_WIDTH = 256
_CONTEXT = 65536
#: A prompt with this word in it is answered without end.
ENDLESS = "forever"
_WORDS = ["▁A", "▁tiny", "▁model", "▁says", "▁so", ":", "▁", *"😀".encode(), "."]
_LOOP = ["▁on", "▁and"]
#: What it says to anything else.
SAYS = " A tiny model says so: 😀."

_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if '" + ENDLESS + "' in messages[-1]['content'] %}<loop>{% else %}<say>{% endif %}"
)


def write_model(path: Path) -> None:
    """Write the model as GGUF, the format of llama.cpp."""
    special = ["<unk>", "<s>", "</s>", "<say>", "<loop>"]
    words = sorted({word for word in (*_WORDS, *_LOOP) if isinstance(word, str)})
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    number = {token: at for at, token in enumerate(tokens)}
    ids = [number[f"<0x{word:02X}>" if isinstance(word, int) else word] for word in _WORDS]
    loop = [number[word] for word in _LOOP]
    chain = [number["<say>"], *ids, number["</s>"]]
    follows = dict(itertools.pairwise(chain))
    follows.update({number["<loop>"]: loop[0], loop[0]: loop[1], loop[1]: loop[0]})

    random = np.random.default_rng(1)
    embeddings = random.normal(size=(len(tokens), _WIDTH)).astype(np.float32)
    output = np.zeros_like(embeddings)
    for before, after in follows.items():
        output[after] += embeddings[before]

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(at) for at in range(len(tokens))])
    kinds = gguf.TokenType
    writer.add_token_types(
        [
            kinds.UNKNOWN,
            *[kinds.CONTROL] * (len(special) - 1),
            *[kinds.BYTE] * 256,
            *[kinds.NORMAL] * len(words),
        ]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_TEMPLATE)
    nothing = np.zeros((_WIDTH, _WIDTH), np.float32)
    writer.add_tensor("token_embd.weight", embeddings)
    writer.add_tensor("output_norm.weight", np.ones(_WIDTH, np.float32))
    writer.add_tensor("output.weight", output)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(_WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", nothing)
    for name in ("ffn_gate", "ffn_up"):
        writer.add_tensor(f"blk.0.{name}.weight", nothing[:32])
    writer.add_tensor("blk.0.ffn_down.weight", np.ascontiguousarray(nothing[:, :32]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
