"""Token usage as answers and chunks have it.

Owns the structs and their decoders. It refuses to look for usage (`usage`, which is compiled; structs cannot be).
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.dialect import Tokens

# None of these can be part of a cycle, so the collector need not know them.


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Tokens | None = None


class WireUsage(msgspec.Struct, gc=False):
    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: WireUsage | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: WireUsage | None = None


decode_usage: Final = msgspec.json.Decoder(WireUsage).decode
decode_answer: Final = msgspec.json.Decoder(_Answer).decode
decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode
