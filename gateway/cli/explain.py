"""`headrace check --explain MODEL`: where a call would go and why, by the configuration alone.

Owns what is told, as plain values (`explain`) and as text (`told`). It refuses to route: it builds the table that a
worker would serve from, and asks it. Nothing is sent anywhere, so of backends that tell their models themselves it is
only known that they have not been asked. Called by `gateway.cli.check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gateway import __version__
from gateway.clock import Clock
from gateway.config.schema import Backend, Config
from gateway.config.text import quoted
from gateway.config.units import seconds_text
from gateway.estate import Estate
from gateway.front import is_id
from gateway.observe.access import DirectLines
from gateway.observe.counters import Measures
from gateway.observe.logs import Level, Log, Stamp
from gateway.page import alone
from gateway.routing.route import Group, Route
from gateway.routing.routes import OTHER, Match, Routes
from gateway.routing.speech import Speech
from gateway.upstreams import Upstreams
from protocols.dialect import Task

#: Plain values, fit for JSON.
Told = dict[str, Any]

#: What a door's calls are in the hub, by what it takes to serve them. (A raw prompt of Ollama's is a completion.)
_TASKS: Final = {"chat": Task.CHAT, "completion": Task.COMPLETION, "embeddings": Task.EMBEDDINGS}


def table(config: Config) -> Routes:
    """The model table of *config*, as a worker has it before any backend was asked. Raises OSError or ValueError."""
    seat = alone()
    try:
        log = Log(DirectLines([], "json"), Level.ERROR, Stamp())
        return Upstreams(config, Estate(Measures(__version__), Clock(), log, seat), None).routes
    finally:
        seat.page.close()


def explain(config: Config, model: str, request_id: str = "") -> Told:
    """Where a call for *model* would go; with *request_id* only the way of the call that carries it.

    Raises OSError or ValueError where a file that a backend needs cannot be used.
    """
    given, request_id = request_id, request_id if is_id(request_id.encode("utf-8", "surrogateescape")) else ""
    routes = table(config)
    route = routes.find(model)
    unasked = [group.name for group in routes.groups.values() if not group.known]
    found: Told = {
        "model": model,
        "served": route is not None,
        "why": list(_reasons(routes, model)),
        "unasked": unasked,
    }
    if route is None:
        return found | {"ways": [], "backends": {}}
    if given and not request_id:
        found["why"].append(f"the gateway would not take {quoted(given)} for a request id, but make one")
    ways = list(_ways(route, request_id))
    met = {group.name for _, first in ways for one in (first, *first.fallbacks) for group in one.groups}
    backends = {one.name: _backend(one, routes.groups[one.name]) for one in config.backends if one.name in met}
    told_ways = [
        {"share": share, "steps": [_step(one, model) for one in (first, *first.fallbacks)]} for share, first in ways
    ]
    return found | {"request_id": request_id, "ways": told_ways, "backends": backends}


def _ways(route: Route, request_id: str) -> Iterator[tuple[float, Route]]:
    """The routes that calls under *route* take, with their shares."""
    if route.choices is None:
        yield 1.0, route
        return
    bounds, routes = route.choices
    chosen = route.choose(request_id.encode("utf-8", "surrogateescape")) if request_id else None
    for before, bound, one in zip((0, *bounds), bounds, routes, strict=False):
        if bound > before and chosen in (None, one):
            yield (bound - before) / bounds[-1], one


def _step(route: Route, model: str) -> Told:
    """One place of a way. The policy of the first backend holds where there are several."""
    sent = {group.name: (route.renames or {}).get(group.name, model) for group in route.groups}
    return {"fallback": route.serves, "sent": sent, "policy": route.groups[0].name}


def _backend(backend: Backend, group: Group) -> Told:
    policy, timeouts = group.policy, backend.timeouts
    times = {"connect": timeouts.connect, "first_byte": policy.first_byte, "idle": policy.idle, "total": policy.total}
    return {
        "protocol": backend.protocol,
        "doors": _doors(group.speech),
        "asked": group.known,
        "endpoints": [{"url": peer.url, "weight": peer.weight} for peer in group.peers],
        "balance": backend.balance,
        "retry": {"tries": policy.tries, "on": list(backend.retry.on), "budget": policy.budget.ratio},
        "timeouts": times,
    }


def _doors(speech: Speech) -> Told:
    """By their paths, which calls it gets untouched, which are translated, and which are answered without it."""
    translated = []
    for door in speech.able - speech.native:
        task = _TASKS.get(door.capability)
        if door.client is not None and task in speech.sides:
            translated.append(door.path)
    return {
        "relayed": sorted(door.path for door in speech.native),
        "translated": sorted(translated),
        "dialect": speech.family,
        "estimated": sorted(door.path for door in speech.able - speech.native if door.count is not None),
    }


# Why.


def _reasons(routes: Routes, model: str) -> Iterator[str]:
    match = routes.match(model)
    if match.name != model:
        what = "backend" if routes.is_backend(match.name) else "model"
        yield f"routing.model_mappings makes it the {what} {quoted(match.name)}"
    for rule in match.rules:
        how = "names it" if rule.model in (model, match.name) else "is the longest pattern that matches it"
        yield f"[[routes]] with model = {quoted(rule.model)} {how}"
    if match.shares:
        yield "its targets serve it, whoever lists it"
    elif match.name == model or not routes.is_backend(match.name):
        yield _listing(routes, match)
    served = _fallbacks(routes.find(model))
    for name in match.fallbacks:
        if name not in served:
            yield f"the fallback {quoted(name)} is left out: it is tried before, or nobody serves it"


def _listing(routes: Routes, match: Match) -> str:
    name, listing = quoted(match.name), routes.listing(match.name)
    if listing is None:
        then = "its first fallback serves it" if match.fallbacks else "there is no routing.default_backend"
        return f"no backend lists {name}: {then}"
    if listing == match.name:
        return f"backends list {name}"
    if listing == OTHER:
        return f"no backend lists {name}: routing.default_backend takes it"
    return f"backends list the pattern {quoted(listing)}, which matches {name}"


def _fallbacks(route: Route | None) -> set[str]:
    """The fallbacks that calls under *route* may come to."""
    firsts = route.choices.routes if route is not None and route.choices else (route,)
    return {one.serves for first in firsts if first is not None for one in (first, *first.fallbacks)}


# As text.


def told(found: Told) -> str:
    """What `explain` *found*, for people."""
    lines = [quoted(found["model"]) + ("" if found["served"] else ": nobody serves it")]
    lines += [f"  because {reason}" for reason in found["why"]]
    if found["unasked"]:
        names = ", ".join(found["unasked"])
        lines.append(f'  not known here: which models {names} would tell (models = "auto"); nobody was asked')
    for way in found["ways"]:
        lines.append("")
        if found["request_id"]:
            lines.append(f"request id {quoted(found['request_id'])} always goes this way:")
        elif way["share"] < 1:
            lines.append(f"{way['share']:.1%} of the calls, by request id:")
        for at, step in enumerate(way["steps"]):
            lines.append("  " + _told_step(step, "" if at == 0 else "if that fails: "))
    for name, backend in found["backends"].items():
        lines += ["", *_told_backend(name, backend)]
    return "\n".join(lines) + "\n"


def _told_step(step: Told, when: str) -> str:
    sent = step["sent"]
    places = " and ".join(f"backend {name}, asked for {quoted(model)}" for name, model in sent.items())
    policy = f" (balance, retry and timeouts of {step['policy']})" if len(sent) > 1 else ""
    fallback = f" [x-fallback-model: {step['fallback']}]" if step["fallback"] else ""
    return f"{when}{places}{policy}{fallback}"


def _told_backend(name: str, backend: Told) -> Iterator[str]:
    doubt = "" if backend["asked"] else ", its models not known before it is asked"
    yield f"backend {name}: {backend['protocol']}, balance {backend['balance']}{doubt}"
    for endpoint in backend["endpoints"]:
        yield f"  {endpoint['url']}, weight {endpoint['weight']}"
    retry = backend["retry"]
    yield f"  retry: {retry['tries']} tries, on {', '.join(map(str, retry['on']))}, budget {retry['budget']:g}"
    times = [f"{key} {_seconds(value)}" for key, value in backend["timeouts"].items()]
    yield f"  timeouts: {', '.join(times)}"
    doors = backend["doors"]
    if doors["relayed"]:
        yield f"  relayed untouched: {', '.join(doors['relayed'])}"
    if doors["translated"]:
        yield f"  translated, in the dialect of {doors['dialect']}: {', '.join(doors['translated'])}"
    if doors["estimated"]:
        yield f"  estimated here: {', '.join(doors['estimated'])}"


def _seconds(value: float) -> str:
    return seconds_text(value).strip('"') if value else "none"
