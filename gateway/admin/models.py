"""GET /v1/models and /v1/models/{id}: the models of all backends, merged.

Owns the two answers; a key sees the models that it may use. It refuses to ask backends
(`gateway.upstream.discovery`). Made by `gateway.generation`.
"""

from __future__ import annotations

import time
from urllib.parse import unquote

import orjson

from gateway.call import Answer, Call
from gateway.errors import Fault, Kind, Side
from gateway.routing.routes import Routes
from protocols.openai.models import model_entry, models_body

_JSON = b"application/json"
_PREFIX = b"/v1/models/"


class Models:
    """`created` is the time of the start: the gateway does not know when a model was made."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._created = int(time.time())

    def list(self, call: Call) -> Answer:
        entries = [
            model_entry(model, owner, self._created) for model, owner in self._routes.listed() if _may_see(call, model)
        ]
        return Answer(200, _JSON, models_body(entries))

    def one(self, call: Call) -> Answer | Fault:
        """The model whose id is the rest of the path; ids may hold slashes."""
        name = unquote(call.request.path[len(_PREFIX) :].decode("latin-1"))
        for model, owner in self._routes.listed():
            if model == name and _may_see(call, model):
                return Answer(200, _JSON, orjson.dumps(model_entry(model, owner, self._created)))
        return Fault(Side.CLIENT, Kind.UNKNOWN_MODEL, f"The model '{name[:128]}' does not exist.", param="model")


def _may_see(call: Call, model: str) -> bool:
    return call.principal is None or call.principal.may_use(model)
