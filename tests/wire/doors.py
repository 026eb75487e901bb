"""Every client's way of asking for the same: the vendors' own packages, unmodified, at the gateway's doors.

Owns how each dialect says a question and what is read of its answer, whole and streamed. It refuses sockets, backends
(`houses`) and expectations (the tests). Sources: openai-python 3.54, anthropic 2.12, ollama 0.6.3.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import anthropic
import httpx
import httpx2
import ollama
import openai

from tests.wire.client import KEY

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}}
PARAMETERS: dict[str, Any] = {"type": "object", "properties": PROPERTIES}
TOOLS = {"weather": PARAMETERS, "now": {"type": "object", "properties": {}}}


class Asked(NamedTuple):
    """A question, as any client may put it."""

    model: str
    text: str = "Grüße"
    system: str = ""
    tools: tuple[str, ...] = ()
    image: bool = False
    stop: str = ""
    schema: bool = False
    thinks: bool = False
    limit: int = 0
    #: A call that was made before, and its result: the question is what follows.
    result: str = ""


class Heard(NamedTuple):
    """An answer, as any client may read it. *finish*: in OpenAI's words."""

    text: str
    thought: str
    calls: list[tuple[str, Any]]
    finish: str
    #: Of the prompt (what was cached among it) and the completion.
    tokens: tuple[int, int]


class Clients:
    """The packages, at one gateway; none keeps a connection."""

    def __init__(self, url: str, http: httpx2.Client) -> None:
        self.http = http
        self.url = url
        self.openai = openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, http_client=http)
        self.anthropic = anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0, http_client=http)
        self.ollama = ollama.Client(
            url,
            headers={"authorization": f"Bearer {KEY}"},
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )


@contextmanager
def clients(port: int) -> Iterator[Clients]:
    limits = httpx2.Limits(max_keepalive_connections=0)
    with httpx2.Client(trust_env=False, verify=False, limits=limits, timeout=20) as http:
        made = Clients(f"http://127.0.0.1:{port}", http)
        with made.ollama:
            yield made


def data_url() -> str:
    return "data:image/png;base64," + base64.b64encode(PNG).decode()


# --- OpenAI, POST /v1/chat/completions ---


def chat_request(asked: Asked) -> dict[str, Any]:
    content: Any = asked.text
    if asked.image:
        image = {"type": "image_url", "image_url": {"url": data_url()}}
        content = [{"type": "text", "text": asked.text}, image]
    messages: list[Any] = [{"role": "system", "content": asked.system}] if asked.system else []
    messages.append({"role": "user", "content": content})
    if asked.result:
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"x"}'}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "c1", "content": asked.result})
    fields: dict[str, Any] = {"model": asked.model, "messages": messages}
    if asked.tools:
        functions = [{"name": name, "parameters": TOOLS[name]} for name in asked.tools]
        fields["tools"] = [{"type": "function", "function": function} for function in functions]
    if asked.stop:
        fields["stop"] = [asked.stop]
    if asked.schema:
        schema = {"name": "person", "schema": SCHEMA, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if asked.thinks:
        fields["reasoning_effort"] = "high"
    if asked.limit:
        fields["max_completion_tokens"] = asked.limit
    return fields


def by_chat(at: Clients, asked: Asked, stream: bool) -> Heard:
    fields = chat_request(asked)
    if not stream:
        answer = at.openai.chat.completions.create(**fields)
        choice, usage = answer.choices[0], answer.usage
        message = choice.message
        calls = [(one.function.name, one.function.arguments) for one in message.tool_calls or ()]
        thought = getattr(message, "reasoning_content", None) or ""
        text, finish = message.content or "", choice.finish_reason
    else:
        text = thought = finish = ""
        made: dict[int, list[str]] = {}
        usage = None
        for chunk in at.openai.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for one in chunk.choices:
                text += one.delta.content or ""
                thought += getattr(one.delta, "reasoning_content", None) or ""
                finish = one.finish_reason or finish
                for delta in one.delta.tool_calls or ():
                    entry = made.setdefault(delta.index, ["", ""])
                    entry[0] += delta.function.name or ""
                    entry[1] += delta.function.arguments or ""
        calls = [(name, arguments) for name, arguments in made.values()]
    assert usage is not None
    return Heard(text, thought, _read(calls), finish, (usage.prompt_tokens, usage.completion_tokens))


def _read(calls: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments in calls]


# --- OpenAI, POST /v1/responses ---


def by_responses(at: Clients, asked: Asked, stream: bool) -> Heard:
    content: Any = asked.text
    if asked.image:
        image = {"type": "input_image", "image_url": data_url(), "detail": "auto"}
        content = [{"type": "input_text", "text": asked.text}, image]
    items: list[Any] = [{"role": "user", "content": content}]
    if asked.result:
        items.append({"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"x"}'})
        items.append({"type": "function_call_output", "call_id": "c1", "output": asked.result})
    fields: dict[str, Any] = {"model": asked.model, "input": items, "store": False}
    if asked.system:
        fields["instructions"] = asked.system
    if asked.tools:
        fields["tools"] = [
            {"type": "function", "name": name, "parameters": TOOLS[name], "strict": False} for name in asked.tools
        ]
    if asked.schema:
        fields["text"] = {"format": {"type": "json_schema", "name": "person", "schema": SCHEMA, "strict": True}}
    if asked.thinks:
        fields["reasoning"] = {"effort": "high"}
    if asked.limit:
        fields["max_output_tokens"] = asked.limit
    if stream:
        with at.openai.responses.stream(**fields) as events:
            heard = list(events)
        answer: Any = heard[-1].response  # type: ignore[union-attr]  # the last event has one
        assert (heard[0].type, heard[-1].type) == ("response.created", f"response.{answer.status}")
    else:
        answer = at.openai.responses.create(**fields)
    calls = [(one.name, one.arguments) for one in answer.output if one.type == "function_call"]
    thoughts = [part.text for one in answer.output if one.type == "reasoning" for part in one.content or one.summary]
    reasons = {"max_output_tokens": "length", "content_filter": "content_filter"}
    finish = "tool_calls" if calls else "stop"
    if answer.status == "incomplete":
        finish = reasons[answer.incomplete_details.reason]
    tokens = answer.usage.input_tokens, answer.usage.output_tokens
    return Heard(answer.output_text, "".join(thoughts), _read(calls), finish, tokens)


# --- Anthropic, POST /v1/messages ---

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "refusal": "content_filter",
}


def by_messages(at: Clients, asked: Asked, stream: bool) -> Heard:
    content: Any = asked.text
    if asked.image:
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
        content = [{"type": "text", "text": asked.text}, {"type": "image", "source": source}]
    messages: list[Any] = [{"role": "user", "content": content}]
    if asked.result:
        use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "x"}}
        result = {"type": "tool_result", "tool_use_id": "c1", "content": asked.result}
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    fields: dict[str, Any] = {"model": asked.model, "messages": messages, "max_tokens": asked.limit or 1536}
    if asked.system:
        fields["system"] = asked.system
    if asked.tools:
        fields["tools"] = [{"name": name, "input_schema": TOOLS[name]} for name in asked.tools]
    if asked.stop:
        fields["stop_sequences"] = [asked.stop]
    if asked.schema:
        fields["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    if asked.thinks:
        fields["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    if stream:
        with at.anthropic.messages.stream(**fields) as events:
            kinds = [event.type for event in events]
            message = events.get_final_message()
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    else:
        message = at.anthropic.messages.create(**fields)
    text = "".join(block.text for block in message.content if block.type == "text")
    thought = "".join(block.thinking for block in message.content if block.type == "thinking")
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    usage = message.usage
    prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return Heard(text, thought, calls, FINISHES[str(message.stop_reason)], (prompt, usage.output_tokens))


# --- Ollama, POST /api/chat and /api/generate ---


def _options(asked: Asked) -> dict[str, Any]:
    options = {"stop": [asked.stop]} if asked.stop else {}
    return options | ({"num_predict": asked.limit} if asked.limit else {})


def by_ollama_chat(at: Clients, asked: Asked, stream: bool) -> Heard:
    messages: list[dict[str, Any]] = [{"role": "system", "content": asked.system}] if asked.system else []
    messages.append({"role": "user", "content": asked.text} | ({"images": [PNG]} if asked.image else {}))
    if asked.result:
        call = {"function": {"name": "weather", "arguments": {"city": "x"}}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_name": "weather", "content": asked.result})
    tools = [{"type": "function", "function": {"name": name, "parameters": TOOLS[name]}} for name in asked.tools]
    fields: dict[str, Any] = {
        "model": asked.model,
        "messages": messages,
        "tools": tools or None,
        "format": SCHEMA if asked.schema else None,
        "think": True if asked.thinks else None,
        "options": _options(asked) or None,
    }
    parts = list(at.ollama.chat(**fields, stream=True)) if stream else [at.ollama.chat(**fields)]
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    text = "".join(part.message.content or "" for part in parts)
    thought = "".join(part.message.thinking or "" for part in parts)
    made = [call.function for part in parts for call in part.message.tool_calls or ()]
    last = parts[-1]
    finish = "tool_calls" if made else str(last.done_reason)
    calls = [(function.name, dict(function.arguments)) for function in made]
    return Heard(text, thought, calls, finish, (last.prompt_eval_count or 0, last.eval_count or 0))


def by_generate(at: Clients, asked: Asked, stream: bool) -> Heard:
    fields: dict[str, Any] = {
        "model": asked.model,
        "prompt": asked.text,
        "system": asked.system,
        "images": [PNG] if asked.image else None,
        "format": SCHEMA if asked.schema else None,
        "think": True if asked.thinks else None,
        "options": _options(asked) or None,
    }
    parts = list(at.ollama.generate(**fields, stream=True)) if stream else [at.ollama.generate(**fields)]
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    text = "".join(part.response or "" for part in parts)
    thought = "".join(part.thinking or "" for part in parts)
    last = parts[-1]
    tokens = last.prompt_eval_count or 0, last.eval_count or 0
    return Heard(text, thought, [], str(last.done_reason), tokens)


#: The doors of chats, by their path.
CHATS = {
    "/v1/chat/completions": by_chat,
    "/v1/responses": by_responses,
    "/v1/messages": by_messages,
    "/api/chat": by_ollama_chat,
    "/api/generate": by_generate,
}
