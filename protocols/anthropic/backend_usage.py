"""Tokens as the Messages API counts them, in the hub's words; and why an answer ended.

Anthropic's `input_tokens` are those that no cache had part in; the hub's `prompt_tokens` are all of them. Source:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching and `Usage` of Anthropic's Python SDK 2.12.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from protocols.dialect import JsonObject, are_tokens

#: What a backend may write at all; one that no answer can have is nonsense (`are_tokens`).
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]

_FINISHES: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: Count | None = None


class WireUsage(msgspec.Struct, gc=False):
    """A message's usage; in a stream each event tells some of it, and the last word counts."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    output_tokens_details: _OutputDetails | None = None

    def update(self, later: WireUsage) -> None:
        """Take what *later* tells; null says nothing."""
        for name in self.__struct_fields__:
            value = getattr(later, name)
            if value is not None:
                setattr(self, name, value)


def hub_usage(wire: WireUsage) -> JsonObject | None:
    """The hub's usage; None where nothing was told, or nonsense."""
    if wire.input_tokens is None and wire.output_tokens is None:
        return None
    written = wire.cache_creation_input_tokens or 0
    cached = wire.cache_read_input_tokens or 0
    prompt = (wire.input_tokens or 0) + written + cached
    completion = wire.output_tokens or 0
    if not are_tokens(prompt, completion):
        return None
    usage: JsonObject = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_creation_tokens": written},
    }
    details = wire.output_tokens_details
    if details is not None and details.thinking_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": details.thinking_tokens}
    return usage


def finish_of(stop_reason: str | None, called: bool) -> str:
    """The hub's finish_reason. One that is not known, or not told, is what the content says: *called* a tool or not."""
    known = _FINISHES.get(stop_reason or "")
    return known if known is not None else "tool_calls" if called else "stop"
