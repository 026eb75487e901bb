"""Routes by environment: `GATEWAY_ROUTE_POLICIES` and `GATEWAY_FALLBACKS` of the quick form.

Owns these two names and the way from their text to [[routes]]. It refuses judging the routes (`routes`). Called by
`quick`, after the upstreams.

A policy names upstreams, and its model's name goes to them as it is: an upstream of the quick form lists its own name
only, so it is made to list the model too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.config.faults import Faults
from gateway.config.text import one_of, shown
from gateway.config.tree import Array, Leaf, Table, element_key, grow

FALLBACKS: Final = "GATEWAY_FALLBACKS"
ROUTE_POLICIES: Final = "GATEWAY_ROUTE_POLICIES"
#: The percent of a canary whose policy gives none.
CANARY_PERCENT: Final = 5

#: What a policy of each strategy may have, beside "strategy".
_KEYS: Final = {
    "weighted": ("targets",),
    "canary": ("primary", "canary", "percent", "percentage"),
    "direct": ("target",),
}


class _Wrong(ValueError):
    """The policy cannot be read. The message says what is wrong and what was expected."""


def apply(root: Table, environ: Mapping[str, str], faults: Faults) -> None:
    """Append to *root* the routes that the two variables name, one for each model."""
    routes: dict[str, Table] = {}
    for model, policy in _policies(environ, faults):
        try:
            raw = {"model": model, **_route(policy)}
        except _Wrong as error:
            faults.add(_source(ROUTE_POLICIES), element_key("routes", {"model": model}, 0), str(error))
            continue
        routes[model] = _grown(raw, ROUTE_POLICIES)
        for target in raw["targets"]:
            _list_model(root, target["backend"], model)
    for model, names in _fallbacks(environ, faults):
        made = _grown({"model": model, "fallbacks": names}, FALLBACKS)
        if model in routes:
            routes[model].entries["fallbacks"] = made.entries["fallbacks"]
        else:
            routes[model] = made
    if routes:
        root.array("routes").items.extend(routes.values())


def _source(name: str) -> str:
    return f"environment {name}"


def _grown(raw: dict[str, Any], name: str) -> Table:
    made = grow(raw, _source(name), element_key("routes", raw, 0))
    assert isinstance(made, Table)
    return made


def _policies(environ: Mapping[str, str], faults: Faults) -> list[tuple[str, object]]:
    text = environ.get(ROUTE_POLICIES, "")
    if not text.strip():
        return []
    expected = 'expected a table as JSON: {"model": {"strategy": "weighted", "targets": [...]}}'
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        faults.add(_source(ROUTE_POLICIES), "", f"is not JSON ({error}), {expected}")
        return []
    if not isinstance(found, dict):
        faults.add(_source(ROUTE_POLICIES), "", f"is no JSON object, {expected}")
        return []
    return list(found.items())


def _route(policy: object) -> dict[str, Any]:
    """*policy* as an element of [[routes]]. Raises _Wrong."""
    if not isinstance(policy, dict):
        raise _Wrong("is no JSON object, expected a policy with a strategy")
    strategy = policy.get("strategy", "weighted")
    if not isinstance(strategy, str) or strategy not in _KEYS:
        raise _Wrong(f"has an unknown strategy, expected one of {one_of(_KEYS)}")
    for key in policy:
        if key != "strategy" and key not in _KEYS[strategy]:
            raise _Wrong(f"has the key {shown(key)}, expected with {strategy}: {one_of(_KEYS[strategy])}")
    if strategy == "weighted":
        targets = _weighted(policy.get("targets"))
    elif strategy == "canary":
        percent = policy.get("percent", policy.get("percentage", CANARY_PERCENT))
        targets = [
            {"backend": _name(policy, "primary")},
            {"backend": _name(policy, "canary"), "weight": percent},
        ]
    else:
        targets = [{"backend": _name(policy, "target")}]
    return {"strategy": strategy, "targets": targets}


def _weighted(targets: object) -> list[dict[str, Any]]:
    if not isinstance(targets, list) or not targets:
        raise _Wrong('has no targets, expected an array of {"name": upstream, "weight": number}')
    made = []
    for target in targets:
        if not isinstance(target, dict) or not target.keys() <= {"name", "weight"}:
            raise _Wrong('has a wrong target, expected {"name": upstream, "weight": number}')
        weight = {"weight": target["weight"]} if "weight" in target else {}
        made.append({"backend": _name(target, "name"), **weight})
    return made


def _name(table: dict[str, Any], key: str) -> str:
    name = table.get(key)
    if not isinstance(name, str) or not name:
        raise _Wrong(f"has no {key}, expected the name of an upstream")
    return name


def _list_model(root: Table, upstream: str, model: str) -> None:
    """An upstream of the quick form serves *model* under its name."""
    for backend in root.array("backends").items:
        if not isinstance(backend, Table) or not backend.source.startswith("environment "):
            continue
        name, models = backend.entries.get("name"), backend.entries.get("models")
        is_meant = isinstance(name, Leaf) and name.value == upstream
        if is_meant and isinstance(models, Array) and model not in _values(models):
            models.items.append(Leaf(models.source, f"{models.key}[{len(models.items)}]", model))


def _values(array: Array) -> list[object]:
    return [item.value for item in array.items if isinstance(item, Leaf)]


def _fallbacks(environ: Mapping[str, str], faults: Faults) -> list[tuple[str, list[str]]]:
    """`model=name,name;model=name`."""
    found: dict[str, list[str]] = {}
    for part in environ.get(FALLBACKS, "").split(";"):
        if not part.strip():
            continue
        model, _, listed = (piece.strip() for piece in part.partition("="))
        names = [name.strip() for name in listed.split(",") if name.strip()]
        if not model or not names:
            said = f"has the part {shown(part.strip())}, expected model=name,name;model=name"
            faults.add(_source(FALLBACKS), "", said)
        elif model in found:
            faults.add(_source(FALLBACKS), "", f"names {shown(model)} twice, expected each model once")
        else:
            found[model] = names
    return list(found.items())
