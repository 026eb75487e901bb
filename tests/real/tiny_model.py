"""A language model of half a megabyte, made on the spot: right in shape, random in content.

Owns the file's making. The numbers are drawn from a fixed seed, so every run has the same model.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np

BLOCKS = 2
WIDTH = 64
HEADS = 4
FEED_FORWARD = 128
CONTEXT = 65536
WORDS = ["the", "and", "of", "to", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with"]
#: All that the model knows: after CUE it says CALL, and then END. A question that comes with tools ends with CUE.
CUE, CALL, END = "<cue>", "<tool_call>", "<0x0A>"
#: Says tools and calls in Hermes' way, which llama.cpp reads out of a template: so it binds answers to a grammar where
#: a call or a schema is wanted. What an answer begins with has to pass that grammar, so it has no special token.
TEMPLATE = (
    "{% for tool in tools or [] %}<tool>{{ tool | tojson }}</tool>\n{% endfor %}"
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}<tool_call>\n"
    "{\"name\": {{ call['function']['name'] | tojson }}, \"arguments\": {{ call['function']['arguments'] | tojson }}}"
    "\n</tool_call>{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant: "
    "{% if tools and messages[-1]['role'] == 'user' %}<cue>{% endif %}{% endif %}"
)


def _vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types of a SentencePiece vocabulary: specials, all bytes, and some words."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    letters = [*"abcdefghijklmnopqrstuvwxyz", "\u2581", *(f"\u2581{word}" for word in WORDS)]
    tokens += letters
    types += [kinds.NORMAL] * len(letters)
    tokens += [CUE, CALL]
    types += [kinds.USER_DEFINED] * 2
    scores = [-float(number) for number in range(len(tokens))]
    return tokens, scores, [int(kind) for kind in types]


def write_model(path: Path) -> Path:
    """Write the model to *path* and return it."""
    tokens, scores, types = _vocabulary()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in _tensors(tokens):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(tokens: list[str]) -> list[tuple[str, np.ndarray]]:
    dice = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return dice.normal(0, 0.1, shape).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    inputs, outputs = draw(len(tokens), WIDTH), draw(len(tokens), WIDTH)
    inputs[:, :2] = outputs[:, :2] = 0  # the first two dimensions say what the last token was, and nothing else
    for dimension, (last, then) in enumerate(pairwise([CUE, CALL, END])):
        inputs[tokens.index(last), dimension] = outputs[tokens.index(then), dimension] = 10
    tensors = [("token_embd.weight", inputs), ("output_norm.weight", ones), ("output.weight", outputs)]
    for block in range(BLOCKS):
        square = {f"blk.{block}.attn_{part}.weight": draw(WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        down = draw(WIDTH, FEED_FORWARD)
        square[f"blk.{block}.attn_output.weight"][:2] = down[:2] = 0
        tensors += square.items()
        tensors += [(f"blk.{block}.{part}_norm.weight", ones) for part in ("attn", "ffn")]
        tensors.append((f"blk.{block}.ffn_gate.weight", draw(FEED_FORWARD, WIDTH)))
        tensors.append((f"blk.{block}.ffn_up.weight", draw(FEED_FORWARD, WIDTH)))
        tensors.append((f"blk.{block}.ffn_down.weight", down))
    return tensors
