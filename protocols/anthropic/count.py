"""An estimate of a request's input tokens, for POST /v1/messages/count_tokens where no backend can count.

Owns the rule. It is simple and the same everywhere, and has no model's vocabulary; so it is for budgets, not for bills:

- text, the names of tools and the JSON of their schemas and arguments: a token for each four bytes of UTF-8, rounded
  up for each piece (English has about four letters in a token, Chinese about one sign of three bytes);
- each message three tokens for its frame, each tool and each tool call eight;
- an image 1600 tokens, the most that the vendor's formula (width x height / 750) gives for one it does not shrink;
- a file 3000, which the vendor's documentation tells of a dense page of a PDF;
- three for the answer's beginning.

It refuses what the vendor's API would not be asked: a request is judged as `MessagesClient` judges it.
"""

from __future__ import annotations

from typing import Final

import orjson

from protocols.anthropic.client_fields import dump
from protocols.anthropic.client_request import read_request
from protocols.dialect import Dropped, JsonObject

BYTES_A_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 3
TOOL_TOKENS: Final = 8
IMAGE_TOKENS: Final = 1600
FILE_TOKENS: Final = 3000
OPENING_TOKENS: Final = 3


def count_body(fields: JsonObject, dropped: Dropped) -> bytes:
    """The answer to a request of /v1/messages/count_tokens. Raises `Unmappable`."""
    return orjson.dumps({"input_tokens": estimate(read_request(fields, False, dropped, is_count=True))})


def estimate(hub: JsonObject) -> int:
    """The input tokens of a request in the hub's words, as `MessagesClient` makes it."""
    tokens = OPENING_TOKENS + sum(_of_message(message) for message in hub["messages"])
    for tool in hub.get("tools", ()):
        tokens += TOOL_TOKENS + _of_json(tool["function"], "tools")
    if "response_format" in hub:
        tokens += _of_json(hub["response_format"]["json_schema"]["schema"], "output_config.format.schema")
    return tokens


def _of_message(message: JsonObject) -> int:
    tokens = MESSAGE_TOKENS + _of_text(message.get("reasoning_content", ""))
    for call in message.get("tool_calls", ()):
        tokens += TOOL_TOKENS + _of_text(call["function"]["name"]) + _of_text(call["function"]["arguments"])
    content = message["content"] or ""
    if isinstance(content, str):
        return tokens + _of_text(content)
    return tokens + sum(_of_part(part) for part in content)


def _of_part(part: JsonObject) -> int:
    if part["type"] == "text":
        return _of_text(part["text"])
    return IMAGE_TOKENS if part["type"] == "image_url" else FILE_TOKENS


def _of_text(text: str) -> int:
    return -(-len(text.encode()) // BYTES_A_TOKEN)


def _of_json(value: JsonObject, at: str) -> int:
    return -(-len(dump(value, at)) // BYTES_A_TOKEN)
