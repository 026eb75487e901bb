"""Requests, answers and streams in the hub's words, and JSON with something wrong in it, as hypothesis draws them.

Owns the strategies of the conformance suite. What a dialect cannot say is not drawn for it: each strategy is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from protocols.dialect import JsonObject, Task
from tests.unit.conforming import Has

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12) | st.sampled_from(
    ["Grüße 👋🏽", "data: x\n\n", '{"done":true}', "\r\n\r\n", "[DONE]", "\u2028", "\ufeff", " ", "event: error\n\n"]
)
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
COUNTS = st.integers(0, 2**31)


@st.composite
def usages(draw: st.DrawFn, has: Has) -> JsonObject:
    prompt, completion = draw(COUNTS), draw(COUNTS)
    usage: JsonObject = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if has.cached and draw(st.booleans()):
        usage["prompt_tokens_details"] = {"cached_tokens": draw(st.integers(0, prompt))}
    return usage


@st.composite
def messages(draw: st.DrawFn, has: Has) -> JsonObject:
    """An assistant's message with at least some text or a call."""
    message: JsonObject = {"role": "assistant", "content": draw(st.none() | TEXTS)}
    if has.reasoning and draw(st.booleans()):
        message["reasoning_content"] = draw(TEXTS)
    count = draw(st.integers(0 if message["content"] else 1, 3))
    if count:
        message["tool_calls"] = [
            {
                "id": f"call_{at}",
                "type": "function",
                "function": {"name": draw(NAMES), "arguments": json.dumps(draw(OBJECTS))},
            }
            for at in range(count)
        ]
    return message


@st.composite
def answers(draw: st.DrawFn, task: Task, has: Has) -> JsonObject:
    """A whole answer."""
    answer: JsonObject = {"id": "x", "created": 1, "model": "big"}
    if task is Task.EMBEDDINGS:
        floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=3)
        vectors = draw(st.lists(floats, min_size=1, max_size=3))
        answer["data"] = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(vectors)]
        count = draw(COUNTS)
        answer["usage"] = {"prompt_tokens": count, "total_tokens": count}
        return answer
    answer["choices"] = [draw(_choices(task, has, at)) for at in range(draw(st.integers(1, 2 if has.choices else 1)))]
    answer["usage"] = draw(usages(has))
    return answer


@st.composite
def _choices(draw: st.DrawFn, task: Task, has: Has, index: int) -> JsonObject:
    finish = draw(st.sampled_from(has.finishes))
    if task is Task.COMPLETION:
        return {"index": index, "text": draw(TEXTS), "finish_reason": finish}
    message = draw(messages(has))
    if "tool_calls" in message and finish == "stop":
        finish = "tool_calls"
    return {"index": index, "message": message, "finish_reason": finish}


@st.composite
def streams(draw: st.DrawFn, answer: JsonObject, interleaved: bool = True) -> list[JsonObject]:
    """The chunks that tell *answer*, cut and ordered as a backend may."""
    head = {name: answer[name] for name in ("id", "created", "model")}
    chunks: list[JsonObject] = []
    for choice in answer["choices"]:
        place = {"index": choice["index"], "finish_reason": None}
        chunks += [{**head, "choices": [{**place, **piece}]} for piece in draw(_pieces(choice, interleaved))]
    chunks.append({**head, "choices": [], "usage": answer["usage"]})
    if draw(st.booleans()):  # the usage sits in the last chunk
        chunks.pop()
        chunks[-1]["usage"] = answer["usage"]
    return chunks


@st.composite
def _pieces(draw: st.DrawFn, choice: JsonObject, interleaved: bool) -> list[JsonObject]:
    finish = choice["finish_reason"]
    if "text" in choice:
        return [*({"text": one} for one in draw(parts(choice["text"]))), {"text": "", "finish_reason": finish}]
    message = choice["message"]
    deltas: list[JsonObject] = [{"role": "assistant", "content": draw(st.sampled_from([None, ""]))}]
    deltas += [{"reasoning_content": one} for one in draw(parts(message.get("reasoning_content") or ""))]
    deltas += [{"content": one} for one in draw(parts(message.get("content") or ""))]
    lanes = [draw(_lane(at, call)) for at, call in enumerate(message.get("tool_calls") or ())]
    opened = 0
    while any(lanes):
        # A call opens after the one before it.
        ready = [at for at, lane in enumerate(lanes) if lane and at <= opened]
        at = draw(st.sampled_from(ready)) if interleaved else ready[0]
        opened = max(opened, at + 1)
        deltas.append({"tool_calls": [{"index": at, **lanes[at].pop(0)}]})
    return [*({"delta": delta} for delta in deltas), {"delta": {}, "finish_reason": finish}]


@st.composite
def _lane(draw: st.DrawFn, at: int, call: JsonObject) -> list[JsonObject]:
    first, *rest = draw(parts(call["function"]["arguments"])) or [""]
    if draw(st.booleans()):
        first, rest = "", [first, *rest]
    opening = {"id": call["id"], "type": "function", "function": {"name": call["function"]["name"], "arguments": first}}
    return [opening, *({"function": {"arguments": one}} for one in rest)]


@st.composite
def parts(draw: st.DrawFn, text: str) -> list[str]:
    """*text*, cut anywhere; no part is empty."""
    if not text:
        return []
    places = sorted(draw(st.sets(st.integers(1, len(text)), max_size=3)) | {len(text)})
    return [text[a:b] for a, b in zip([0, *places], places, strict=False)]


#: What stands where something else was expected: first what most often is.
ODD = [None, -1, 10**30, "x", [], {}]
WRONG = st.sampled_from([*ODD, True, 0, 1e308, "", "null", [None], [[]], [{}], {"type": "text"}, {"": None}, 2**63])


def each_spoiled(value: Any) -> Iterator[Any]:
    """*value* with each part of it, one at a time, replaced by each of `ODD`."""
    yield from ODD
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: odd} for odd in each_spoiled(inner))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from ([*value[:at], odd, *value[at + 1 :]] for odd in each_spoiled(inner))


@st.composite
def spoiled(draw: st.DrawFn, value: Any) -> Any:
    """*value* with one thing in it replaced, gone or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        name = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 5)):
            return {key: inner for key, inner in value.items() if key != name}
        return {**value, name: draw(spoiled(value[name]))}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        if not draw(st.integers(0, 5)):
            return [*value, value[at]]
        return [*value[:at], draw(spoiled(value[at])), *value[at + 1 :]]
    return draw(WRONG)


WORDS = TEXTS.filter(str.strip)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "Does it.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
]
CHOICES = [None, "auto", "none", "required", {"type": "function", "function": {"name": "f"}}]

#: Fields of a request, by their names in the hub, that some dialects can say and others cannot.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "max_completion_tokens": st.integers(1, 4096),
    "temperature": st.floats(0, 1),
    "top_p": st.floats(0.1, 0.9),
    "top_k": st.integers(1, 100),
    "min_p": st.floats(0.1, 0.9),
    "seed": st.integers(1, 2**31 - 1),
    "frequency_penalty": st.floats(-2, 2),
    "presence_penalty": st.floats(-2, 2),
    "stop": st.lists(NAMES, min_size=1, max_size=4, unique=True),
    "response_format": st.just({"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}),
    "tools": st.just(TOOLS),
}


@st.composite
def requests(draw: st.DrawFn, says: frozenset[str]) -> JsonObject:
    """A chat's request with none but the fields that a dialect *says*."""
    said: list[JsonObject] = []
    if draw(st.booleans()):
        said.append({"role": draw(st.sampled_from(["system", "developer"])), "content": draw(WORDS)})
    for turn in range(draw(st.integers(0, 2))):
        said.append({"role": "user", "content": draw(WORDS)})
        said += draw(_replies(turn))
    text = {"type": "text", "text": draw(WORDS)}
    said.append({"role": "user", "content": draw(st.sampled_from([text["text"], [text], [text, IMAGE]]))})
    hub: JsonObject = {"model": "m", "messages": said}
    for name in draw(st.sets(st.sampled_from(sorted(says & FIELDS.keys())))):
        hub[name] = draw(FIELDS[name])
    if "tools" in hub and "tool_choice" in says:
        choice = draw(st.sampled_from(CHOICES))
        if choice is not None:
            hub["tool_choice"] = choice
        if choice != "none" and draw(st.booleans()):
            hub["parallel_tool_calls"] = False
    return hub


@st.composite
def _replies(draw: st.DrawFn, turn: int) -> list[JsonObject]:
    """An assistant's message and, where it calls, what the calls brought."""
    message: JsonObject = {"role": "assistant", "content": draw(st.none() | WORDS)}
    count = draw(st.integers(0 if message["content"] else 1, 2))
    if not count:
        return [message]
    message["tool_calls"] = [
        {
            "id": f"call_{turn}_{at}",
            "type": "function",
            "function": {"name": draw(st.sampled_from("fg")), "arguments": json.dumps(draw(OBJECTS))},
        }
        for at in range(count)
    ]
    results = [{"role": "tool", "tool_call_id": one["id"], "content": draw(WORDS)} for one in message["tool_calls"]]
    return [message, *results]
