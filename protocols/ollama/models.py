"""Lists of models as Ollama tells them: /api/tags and /api/version, written for clients; tags, read from servers.

Source: `api.ListResponse` of the server v0.33, `ListResponse` of the Python SDK 0.6.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import msgspec

from protocols.ollama.json_text import encode
from protocols.ollama.moments import rfc3339


class _Entry(msgspec.Struct):
    name: str = ""
    model: str = ""


class _List(msgspec.Struct):
    models: list[_Entry]


_decoder = msgspec.json.Decoder(_List)


def tags_body(names: Iterable[str], modified: int) -> bytes:
    """The list of models called *names*; *modified*, Unix seconds, is when the list became what it is.

    Nothing is made up: `size` is 0 and `details` are empty, because a gateway does not know them. `digest` must tell
    models apart (clients keep them by it), so it is the SHA-256 of the name, and says nothing of any file.
    """
    details = {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": [],
        "parameter_size": "",
        "quantization_level": "",
    }
    entries = [
        {
            "name": name,
            "model": name,
            "modified_at": rfc3339(modified),
            "size": 0,
            "digest": sha256(name.encode()).hexdigest(),
            "details": details,
        }
        for name in names
    ]
    return encode({"models": entries})


def version_body(version: str) -> bytes:
    """The version of the API that is spoken: clients compare it with the one that they need."""
    return encode({"version": version})


def parse_models(body: bytes) -> tuple[str, ...]:
    """The names in a server's list. Raises ValueError where it is not such a list.

    Left out are names that a configuration could not give either: empty, with control characters or spaces around.
    """
    try:
        names = [entry.model or entry.name for entry in _decoder.decode(body).models]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a list of models: {error}") from None
    return tuple(name for name in names if name and name.isprintable() and name == name.strip())
