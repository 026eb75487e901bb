"""GET /v1/models, /v1/models/{id} and /api/tags: the models of all backends, merged, in each dialect's shape.

Owns these answers and /api/version's; a key sees the models that it may use. It refuses to ask backends
(`gateway.upstream.discovery`). Made by `gateway.generation`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

import orjson

from gateway.call import Answer, Call
from gateway.errors import Fault, Kind, Side
from gateway.routing.routes import OTHER, Routes
from protocols.anthropic import models as anthropic
from protocols.dialect import Unmappable
from protocols.ollama import models as ollama
from protocols.openai.models import model_entry, models_body

_JSON: Final = b"application/json"
_PREFIX: Final = b"/v1/models/"
#: The version of Ollama whose API is spoken; its clients compare it with the one that they need.
OLLAMA_VERSION: Final = "0.33.0"


class Models:
    """`created` is the time of the start: the gateway does not know when a model was made."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._created = int(time.time())

    def list(self, call: Call) -> Answer:
        """OpenAI's list."""
        entries = [model_entry(model, owner, self._created) for model, owner in self._seen(call)]
        return Answer(200, _JSON, models_body(entries))

    def one(self, call: Call) -> Answer | Fault:
        """The model whose id is the rest of the path; ids may hold slashes."""
        name = _asked(call)
        owner = self._owner(call, name)
        if owner is None:
            return _unknown(name)
        return Answer(200, _JSON, orjson.dumps(model_entry(name, owner, self._created)))

    def page(self, call: Call) -> Answer | Fault:
        """Anthropic's list, in pages."""
        entries = [anthropic.model_entry(model, self._created) for model, _ in self._seen(call)]
        try:
            page = anthropic.read_page(call.request.query.decode("latin-1"))
            return Answer(200, _JSON, anthropic.models_body(entries, page))
        except Unmappable as error:
            return Fault(Side.CLIENT, Kind.BAD_REQUEST, error.message, param=error.param)

    def one_of_page(self, call: Call) -> Answer | Fault:
        """One model as Anthropic tells it."""
        name = _asked(call)
        if self._owner(call, name) is not None:
            return Answer(200, _JSON, anthropic.model_body(anthropic.model_entry(name, self._created)))
        return _unknown(name)

    def tags(self, call: Call) -> Answer:
        """Ollama's list."""
        return Answer(200, _JSON, ollama.tags_body((model for model, _ in self._seen(call)), self._created))

    def version(self, call: Call) -> Answer:
        """Which of Ollama's versions this is as good as."""
        return Answer(200, _JSON, ollama.version_body(OLLAMA_VERSION))

    def _owner(self, call: Call, name: str) -> str | None:
        """Whose model *name* is, by itself or by a pattern; None where it is nobody's, or not this key's."""
        if call.principal is not None and not call.principal.may_use(name):
            return None
        route = self._routes.find(name)
        return route.groups[0].name if route is not None and route.label != OTHER else None

    def _seen(self, call: Call) -> Iterator[tuple[str, str]]:
        """(model, backend's name) of those that the caller's key may use."""
        principal = call.principal
        return (
            (model, owner) for model, owner in self._routes.listed() if principal is None or principal.may_use(model)
        )


def _asked(call: Call) -> str:
    return unquote(call.request.path[len(_PREFIX) :].decode("latin-1"))


def _unknown(name: str) -> Fault:
    return Fault(Side.CLIENT, Kind.UNKNOWN_MODEL, f"The model '{name[:128]}' does not exist.", param="model")
