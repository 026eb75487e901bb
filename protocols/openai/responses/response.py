"""The response object of POST /v1/responses.

Owns the members that are the same whatever the backend says: ids, time, and what was asked. It refuses the output.
Made by `client`, once for a call.
"""

from __future__ import annotations

import orjson

from protocols.dialect import JsonObject
from protocols.pieces import Malformed


class ResponseWriter:
    """Writes one call's response, as often as it is told."""

    __slots__ = ("_created", "_echo", "_model", "id")

    def __init__(self, id: str, created: int, model: str, echo: bytes) -> None:
        """*created*: Unix seconds. *model*: where the backend names none. *echo*: what was asked, JSON members."""
        self.id = id
        self._created = created
        self._model = model
        self._echo = echo

    def write(self, told: JsonObject) -> bytes:
        """The response as JSON; *told*: what came of the backend's answer. Raises `Malformed`."""
        head = {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": self._created,
            "completed_at": None,
            "error": None,
            **told,
            "model": told["model"] or self._model,
        }
        try:
            return b"%b,%b}" % (orjson.dumps(head)[:-1], self._echo)
        except TypeError:
            raise Malformed("the answer has a value in it that is no JSON") from None
