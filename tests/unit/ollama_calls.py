"""What the tests of Ollama's sides share: transcripts, and sides with an id and a time.

Owns no expectation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protocols.dialect import Broken, Dropped, Terms
from protocols.ollama.chat_backend import ChatBackend
from protocols.ollama.chat_client import ChatClient
from protocols.ollama.completion_backend import CompletionBackend
from protocols.ollama.embed_client import EmbedClient, EmbeddingsClient
from protocols.ollama.embeddings_backend import EmbeddingsBackend
from protocols.ollama.generate_client import GenerateClient
from protocols.pieces import Malformed

DATA = Path(__file__).parents[1] / "data" / "ollama"
ID = "0123abcd"
CREATED = 1_763_822_518
CREATED_AT = "2025-11-22T14:41:58Z"

CLIENTS = {"chat": ChatClient, "generate": GenerateClient, "embed": EmbedClient, "embeddings": EmbeddingsClient}
BACKENDS = {"chat": ChatBackend, "generate": CompletionBackend, "embed": EmbeddingsBackend}

#: Valid base64 of a picture of one dot.
PNG = json.loads((DATA / "chat-image-stream.request.json").read_text())["messages"][0]["images"][0]


def request(name: str) -> dict[str, Any]:
    value = json.loads((DATA / f"{name}.request.json").read_text())
    assert isinstance(value, dict)
    return value


def names(ending: str, *prefixes: str) -> list[str]:
    """The transcripts of that kind: `stream`, `answer.json` or `request.json`."""
    found = sorted(path.name.removesuffix(f".{ending}") for path in DATA.glob(f"*.{ending}"))
    return [name for name in found if not prefixes or name.partition("-")[0] in prefixes]


def client(path: str, given: dict[str, Any], stream: bool = False, lenient: bool = False) -> Any:
    return CLIENTS[path](given, stream, ID, CREATED, Dropped(lenient))


def backend(path: str, hub: dict[str, Any], stream: bool = False, lenient: bool = False) -> Any:
    return BACKENDS[path](hub, stream, ID, CREATED, Terms(), Dropped(lenient))


def chat_backend(stream: bool = False) -> Any:
    return backend("chat", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}, stream)


def lines(data: bytes) -> list[dict[str, Any]]:
    """The objects of NDJSON; every line has its end."""
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def told(side: Any, *payloads: bytes) -> tuple[list[dict[str, Any]], str]:
    """The chunks of a stream, and how it ended: "", "Malformed: ..." or "Broken: ..."."""
    chunks: list[dict[str, Any]] = []
    try:
        for payload in payloads:
            chunks += side.feed(payload)
        chunks += side.end()
    except (Malformed, Broken) as error:
        return [*chunks, *error.before], f"{type(error).__name__}: {error}"
    return chunks, ""
