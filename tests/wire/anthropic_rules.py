"""What Anthropic's Messages API refuses, and in which words.

Owns the judgement of a request's head and body. It refuses answers (`anthropic_server`). Pure: called with what came.
Sources: https://platform.claude.com/docs/en/api/messages, .../api/errors, .../api/versioning, .../build-with-claude/
vision, .../agents-and-tools/tool-use/handle-tool-calls, `MessageCreateParams` of the Python SDK 2.12. Where the words
are not documented they are those that users of the API quote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Signatures that the scripted model gave to its thinking.
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds"
VERSIONS = ("2023-06-01", "2026-10-21")
NEWER = "2026-10-21"
SAMPLING = ("temperature", "top_p", "top_k")
FIELDS = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "stop_sequences", "stream", "tools", "tool_choice", "thinking"),
        *("output_config", "metadata", "service_tier", "cache_control", "container", "inference_geo", "speed"),
        *("diagnostics", *SAMPLING),
    }
)
NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


class Refusal(Exception):
    """What the API answers in place of a message."""

    def __init__(self, message: str, type: str = "invalid_request_error", status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.status = status


def need(sound: bool, message: str) -> None:
    if not sound:
        raise Refusal(message)


def check_head(headers: Mapping[str, str]) -> str:
    """The version that the request names."""
    key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    if not key.strip():
        raise Refusal("x-api-key header is required", "authentication_error", 401)
    version = headers.get("anthropic-version", "")
    need(bool(version), "anthropic-version: header is required")
    need(version in VERSIONS, f'anthropic-version: "{version}" is not a valid version')
    return version


def check_body(fields: Any, version: str, *, counted: bool = False) -> None:
    """A request for a message; one whose tokens are only *counted* has no max_tokens."""
    need(isinstance(fields, dict), "Input should be an object")
    required = ("model", "messages") if counted else ("model", "max_tokens", "messages")
    for name in required:
        need(name in fields, f"{name}: Field required")
    for name in fields:
        need(name in FIELDS, f"{name}: Extra inputs are not permitted")
        need(name not in SAMPLING or version != NEWER, f"{name}: Extra inputs are not permitted")
    need(isinstance(fields["model"], str) and bool(fields["model"]), "model: Input should be a valid string")
    if not counted:
        most = fields["max_tokens"]
        need(type(most) is int and most >= 0, "max_tokens: Input should be a valid integer")
    need(isinstance(fields.get("stream", False), bool), "stream: Input should be a valid boolean")
    _check_options(fields)
    _check_tools(fields)
    _check_system(fields.get("system"))
    _check_messages(fields["messages"], version)


def _check_options(fields: dict[str, Any]) -> None:
    for name, most in (("temperature", 1), ("top_p", 1)):
        value = fields.get(name, 0)
        need(isinstance(value, int | float) and 0 <= value <= most, f"{name}: range: 0..{most}")
    for at, stop in enumerate(fields.get("stop_sequences", [])):
        need(isinstance(stop, str), f"stop_sequences.{at}: Input should be a valid string")
        need(bool(stop.strip()), "stop_sequences: each stop sequence must contain non-whitespace")
    metadata = fields.get("metadata", {})
    need(set(metadata) <= {"user_id"}, "metadata: Extra inputs are not permitted")
    need(isinstance(metadata.get("user_id", ""), str), "metadata.user_id: Input should be a valid string")
    thinking = fields.get("thinking", {"type": "disabled"})
    kinds = ("enabled", "disabled", "adaptive", "between_tools")
    need(thinking.get("type") in kinds, "thinking: Input tag does not match any of the expected tags")
    if thinking["type"] == "enabled":
        budget = thinking.get("budget_tokens")
        need(type(budget) is int and budget >= 1024, "thinking.enabled.budget_tokens: Input should be at least 1024")
        need(
            budget < fields.get("max_tokens", budget + 1), "`max_tokens` must be greater than `thinking.budget_tokens`"
        )
        need(fields.get("temperature", 1) == 1, "`temperature` may only be set to 1 when thinking is enabled")
    output = fields.get("output_config", {})
    need(set(output) <= {"effort", "format"}, "output_config: Extra inputs are not permitted")
    efforts = ("low", "medium", "high", "xhigh", "max")
    need(output.get("effort", "low") in efforts, "output_config.effort: Input should be 'low', 'medium' or 'high'")
    shape = output.get("format", {"type": "json_schema", "schema": {}})
    need(shape.get("type") == "json_schema", "output_config.format.type: Input should be 'json_schema'")
    need(set(shape) == {"type", "schema"}, "output_config.format: Extra inputs are not permitted")
    need(isinstance(shape["schema"], dict), "output_config.format.schema: Input should be an object")


def _check_tools(fields: dict[str, Any]) -> None:
    tools = fields.get("tools", [])
    for at, tool in enumerate(tools):
        known = {"name", "description", "input_schema", "strict", "cache_control", "type"}
        need(set(tool) <= known, f"tools.{at}.custom: Extra inputs are not permitted")
        need(bool(NAME.match(tool.get("name", ""))), f"tools.{at}.custom.name: String should match pattern")
        schema = tool.get("input_schema")
        need(isinstance(schema, dict), f"tools.{at}.custom.input_schema: Field required")
        need(schema.get("type") == "object", f"tools.{at}.custom.input_schema.type: Input should be 'object'")
    choice = fields.get("tool_choice")
    if choice is None:
        return
    need(bool(tools), "tool_choice may only be specified while providing tools")
    need(choice.get("type") in ("auto", "any", "tool", "none"), "tool_choice: Input tag does not match any")
    allowed = {"type"} if choice["type"] == "none" else {"type", "disable_parallel_tool_use"}
    if choice["type"] == "tool":
        allowed.add("name")
        named = choice.get("name")
        need(any(tool["name"] == named for tool in tools), f"Tool '{named}' not found in provided tools")
    need(set(choice) <= allowed, "tool_choice: Extra inputs are not permitted")


def _check_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    for at, block in enumerate(system):
        need(block.get("type") == "text", f"system.{at}.type: Input should be 'text'")
        need(bool(block["text"].strip()), "system: text content blocks must contain non-whitespace text")


def _check_messages(messages: Any, version: str) -> None:
    need(isinstance(messages, list), "messages: Input should be a valid list")
    need(bool(messages), "messages: at least one message is required")
    need(messages[0].get("role") == "user", 'messages: first message must use the "user" role')
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for at, message in enumerate(messages):
        role = message.get("role")
        need(role in ("user", "assistant"), f"messages.{at}.role: Input should be 'user' or 'assistant'")
        need(set(message) == {"role", "content"}, f"messages.{at}: Extra inputs are not permitted")
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        last = at == len(messages) - 1
        need(
            bool(blocks) or (role == "assistant" and last),
            f"messages.{at}: {role} messages must have non-empty content",
        )
        for place, block in enumerate(blocks):
            _check_block(block, role, f"messages.{at}.content.{place}", version)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)  # consecutive turns are combined
        else:
            turns.append((role, list(blocks)))
    _check_results(turns)


def _check_block(block: Any, role: str, where: str, version: str) -> None:
    need(isinstance(block, dict), f"{where}: Input should be an object")
    kind = block.get("type")
    known = {
        "user": ("text", "image", "document", "tool_result"),
        "assistant": ("text", "tool_use", "thinking", "redacted_thinking", "document"),
    }
    need(kind in known[role], f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
    if kind == "text":
        need(block["text"] != "", "messages: text content blocks must be non-empty")
        need(bool(block["text"].strip()), "messages: text content blocks must contain non-whitespace text")
    elif kind in ("image", "document"):
        need(role == "user" or version != NEWER, f"{where}: document blocks are not permitted in assistant messages")
        _check_source(block.get("source", {}), kind, where)
    elif kind == "tool_use":
        need(bool(NAME.match(block.get("id", ""))), f"{where}.tool_use.id: String should match pattern")
        need(isinstance(block.get("input"), dict), f"{where}.tool_use.input: Input should be a valid dictionary")
    elif kind == "thinking":
        need(block.get("signature") == SIGNATURE, f"{where}: Invalid `signature` in `thinking` block")
    elif kind == "tool_result":
        inner = block.get("content", [])
        for at, one in enumerate([] if isinstance(inner, str) else inner):
            _check_block(one, "user", f"{where}.tool_result.content.{at}", version)


def _check_source(source: dict[str, Any], kind: str, where: str) -> None:
    if source.get("type") == "url":
        need(
            re.match(r"(?i)https?://", source.get("url", "")) is not None,
            f"{where}.source: Only HTTP URLs are supported",
        )
        return
    need(source.get("type") == "base64", f"{where}.source: Input tag does not match any of the expected tags")
    kinds = IMAGES if kind == "image" else ("application/pdf",)
    need(source.get("media_type") in kinds, f"{where}.source.base64.media_type: Input should be {' or '.join(kinds)}")
    need(isinstance(source.get("data"), str), f"{where}.source.base64.data: Field required")


def _check_results(turns: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """Each call of a tool has its result at the beginning of the next turn, and no result is without its call."""
    called: set[str] = set()
    for at, (role, blocks) in enumerate(turns):
        results = [block["type"] == "tool_result" for block in blocks]
        given = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if role == "user":
            lost, strange = called - given, given - called
            need(not lost, f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after")
            need(not strange, f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks")
            need(results == sorted(results, reverse=True), f"messages.{at}: `tool_result` blocks must come first")
        called = {block["id"] for block in blocks if block["type"] == "tool_use"}
