"""Hub requests, and what Anthropic's Messages API gets for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocols.anthropic.backend_side import MessagesBackend
from protocols.dialect import Dropped, Terms, Unmappable

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/JPG;charset=x;base64,/9j/"}}


def ask(hub: dict[str, Any], *, model: str = "m", lenient: bool = False, **terms: Any) -> tuple[Any, list[str]]:
    """The Messages request, and what was left out."""
    dropped = Dropped(lenient)
    side = MessagesBackend(hub, bool(hub.get("stream")), "ab12", 7, Terms(**terms), dropped)
    return json.loads(side.ask(model).body), dropped.fields


def chat(content: Any = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def talk(*messages: dict[str, Any]) -> Any:
    return ask({"messages": list(messages)})[0]["messages"]


def refused(hub: dict[str, Any], **terms: Any) -> str | None:
    with pytest.raises(Unmappable) as caught:
        ask(hub, **terms)
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value.param


def text(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": one} for one in texts]


def call(id: str = "c1", arguments: Any = "{}", name: str = "f") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
