"""The list of models: written for clients, read from backends (GET /v1/models)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import orjson


class _Entry(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Entry]


#: Together's API lists them without an object around (https://docs.together.ai/reference/models).
_decoder = msgspec.json.Decoder(_List | list[_Entry])


def model_entry(name: str, owner: str, created: int) -> dict[str, object]:
    """One model as OpenAI lists it; *owner* is the backend's name, *created* seconds since the epoch."""
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def models_body(entries: Iterable[Mapping[str, object]]) -> bytes:
    return orjson.dumps({"object": "list", "data": [dict(entry) for entry in entries]})


def parse_models(body: bytes) -> tuple[str, ...]:
    """The names in a backend's list. Raises ValueError where it is not such a list.

    Left out are names that a configuration could not give either: empty, with control characters or spaces around.
    They would be labels of metrics and go to clients.
    """
    try:
        listed = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a list of models: {error}") from None
    if not listed:  # an array of nothing is no list of anybody's
        raise ValueError("not a list of models: an empty array")
    names = (entry.id for entry in (listed.data if isinstance(listed, _List) else listed))
    return tuple(name for name in names if name and name.isprintable() and name == name.strip())
