"""What must hold within [[routes]] and [routing] beyond types and ranges.

Owns the rules of routes: their strategies, targets and fallbacks, and the names that they and [routing] refer to. It
refuses backends (`backends`) and to route anything (`gateway.routing`). Called by `load`; each rule speaks through a
`Report`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from gateway.config.convert import meant
from gateway.config.report import Path, Report, is_text
from gateway.config.rules import listed_text, unique_names
from gateway.config.schema import Backend, Config, Route, Target, family_of
from gateway.config.text import is_pattern, shown

_TEXT: Final = "expected text without control characters or spaces around it"
_ROUTING: Final = "routing"


def check(config: Config, report: Report) -> None:
    """Every rule that looks at no backend."""
    for at, route in enumerate(config.routes):
        path: Path = ("routes", at)
        if not is_text(route.model):
            report((*path, "model"), f"is {shown(route.model)}, {_TEXT}")
        listed_text(route.fallbacks, (*path, "fallbacks"), report)
        _fallbacks_once(route, (*path, "fallbacks"), report)
        _targets_once(route, path, report)
        if route.targets:
            _STRATEGIES[route.strategy](route, path, report)
        elif not route.fallbacks and not route.lenient:
            report(path, "has neither targets nor fallbacks nor lenient, expected at least one of them")
        elif route.strategy != "weighted":
            report((*path, "targets"), f"is empty while strategy is {shown(route.strategy)}, expected backends by name")
    unique_names([route.model for route in config.routes], ("routes",), report, "model")
    _mappings(config, report)


def check_whole(config: Config, report: Report) -> None:
    """The rules on names, for a configuration read whole."""
    names = _Names(config)
    _one_dialect(config, names, report)
    if config.routing.default_backend:
        _enabled(config.routing.default_backend, (_ROUTING, "default_backend"), names, report)
    for at, route in enumerate(config.routes):
        for place, target in enumerate(targets_of(route)):
            _enabled(target.backend, _target_path(route, ("routes", at), place), names, report)
        _fallbacks(route, ("routes", at, "fallbacks"), names, report)
    for name, model in config.routing.model_mappings.items():
        path: Path = (_ROUTING, "model_mappings", name)
        if name in names.targeted:
            report(path, "has a route with targets, which wins, expected only one of the two")
        elif is_text(model) and not (names.routed(model) or names.served(model)):
            report(path, names.unknown(model))


def _one_dialect(config: Config, names: _Names, report: Report) -> None:
    """A model is listed by backends of one dialect, unless a route says which of them serve it."""
    first: dict[str, Backend] = {}
    for at, backend in enumerate(config.backends):
        listed = backend.models if backend.enabled and not isinstance(backend.models, str) else ()
        for place, given in enumerate(listed):
            for model in (given,) if isinstance(given, str) else given:
                other = first.setdefault(model, backend)
                if family_of(other) == family_of(backend) or names.divided(model):
                    continue
                said = (
                    f"is {shown(model)}, which {shown(other.name)} ({other.protocol}) lists too, in another dialect "
                    f"than {shown(backend.name)} ({backend.protocol}), expected a route with targets for it"
                )
                report(("backends", at, "models", place), said)


def _enabled(name: str, path: Path, names: _Names, report: Report) -> None:
    if name not in names.backends:
        report(path, f"is {shown(name)}, which is no enabled backend, {meant(name, names.backends)}")


def _fallbacks(route: Route, path: Path, names: _Names, report: Report) -> None:
    for at, name in enumerate(route.fallbacks):
        if name == route.model or not is_text(name):
            continue  # told by `check`
        if names.chained(name, route):
            said = f"is {shown(name)}, which has a route with targets, expected a model or backend without one"
            report((*path, at), said)
        elif not names.served(name):
            report((*path, at), names.unknown(name))


def targets_of(route: Route) -> list[Target]:
    """The targets of *route*, each as a table."""
    return [Target(given) if isinstance(given, str) else given for given in route.targets]


def _target_path(route: Route, path: Path, at: int) -> Path:
    inner: Path = (*path, "targets", at)
    return inner if isinstance(route.targets[at], str) else (*inner, "backend")


def _targets_once(route: Route, path: Path, report: Report) -> None:
    seen: set[str] = set()
    for at, target in enumerate(targets_of(route)):
        if target.backend in seen:
            report(_target_path(route, path, at), f"is {shown(target.backend)} once more, expected each target once")
        seen.add(target.backend)


def _fallbacks_once(route: Route, path: Path, report: Report) -> None:
    for at, name in enumerate(route.fallbacks):
        if name == route.model:
            report((*path, at), "is the route's own model, expected another model or a backend")
        elif name in route.fallbacks[:at]:
            report((*path, at), f"is {shown(name)} once more, expected each fallback once")


def _weighted(route: Route, path: Path, report: Report) -> None:
    if not any(target.weight for target in targets_of(route)):
        report((*path, "targets"), "has weights of 0 only, expected a weight above 0")


def _canary(route: Route, path: Path, report: Report) -> None:
    stable, *canaries = targets_of(route)
    if not canaries:
        report((*path, "targets"), "has one target, expected the stable backend and at least one canary")
    for at, given in enumerate(route.targets[1:], 1):
        if isinstance(given, str):
            said = f"is {shown(given)}, which gives no percent, expected {{ backend = {shown(given)}, weight = 5 }}"
            report((*path, "targets", at), said)
    taken = sum(canary.weight for canary in canaries)
    if taken > 100:
        said = f"has canaries of {taken} percent together, expected at most 100"
        report((*path, "targets"), said)
    elif stable.weight not in (Target("").weight, 100 - taken):
        said = f"is {stable.weight} although the canaries leave {100 - taken} percent, expected no weight or that one"
        report((*path, "targets", 0, "weight"), said)


def _direct(route: Route, path: Path, report: Report) -> None:
    if len(route.targets) != 1:
        report((*path, "targets"), f'has {len(route.targets)} targets while strategy is "direct", expected exactly one')
    else:
        _weighted(route, path, report)


_STRATEGIES: Final = {"weighted": _weighted, "canary": _canary, "direct": _direct}


def _mappings(config: Config, report: Report) -> None:
    mappings = config.routing.model_mappings
    for name, model in mappings.items():
        path: Path = (_ROUTING, "model_mappings", name)
        if not is_text(name) or not is_text(model):
            report(path, f"is not the name of a model on both sides, {_TEXT}")
        elif is_pattern(name):
            report(path, "is a pattern, expected the name of one model ([[routes]] takes patterns)")
        elif model == name:
            report(path, "is mapped to itself, expected another model or a backend")
        elif model in mappings:
            report(path, f"is {shown(model)}, which is mapped itself, expected {shown(mappings[model])} or another")


class _Names:
    """What the names in a configuration may mean. Made for one check."""

    def __init__(self, config: Config) -> None:
        enabled = [backend for backend in config.backends if backend.enabled]
        self.backends = [backend.name for backend in enabled]
        self.listed: dict[str, None] = {}
        #: Whether a name that nobody lists may be served all the same.
        self._open = bool(config.routing.default_backend)
        for backend in enabled:
            if isinstance(backend.models, str):
                self._open = True
                continue
            for model in backend.models:
                self.listed |= dict.fromkeys([model] if isinstance(model, str) else model)
        self._aliases = config.routing.model_mappings
        self._routes = config.routes
        #: Models of routes with targets.
        self.targeted = {route.model for route in config.routes if route.targets}

    def served(self, name: str) -> bool:
        """Whether *name* is a backend or a model that a backend lists, or may yet list."""
        if self._open or name in self._aliases or name in self.backends or name in self.listed:
            return True
        return any(is_pattern(model) and fnmatchcase(name, model) for model in self.listed)

    def routed(self, name: str) -> bool:
        """Whether a route holds for *name*."""
        return any(route.model == name or fnmatchcase(name, route.model) for route in self._routes)

    def divided(self, name: str) -> bool:
        """Whether the calls of *name* go to a route's targets, or where it is mapped to, whoever lists it."""
        exact = next((route for route in self._routes if route.model == name), None)
        patterns = [route for route in self._routes if is_pattern(route.model) and fnmatchcase(name, route.model)]
        route = exact or max(patterns, key=lambda one: len(one.model), default=None)
        return name in self._aliases or (route is not None and bool(route.targets))

    def chained(self, name: str, own: Route) -> bool:
        """Whether *name*, a fallback of the route *own*, has another route with targets."""
        name = self._aliases.get(name, name)
        if name in self.targeted or (name in self.backends and name not in self.listed):
            return name in self.targeted
        patterns = [route for route in self._routes if is_pattern(route.model) and fnmatchcase(name, route.model)]
        exact = any(route.model == name for route in self._routes)
        longest = max(patterns, key=lambda route: len(route.model), default=own)
        return not exact and longest is not own and bool(longest.targets)

    def unknown(self, name: str) -> str:
        known = [*self.backends, *self.listed]
        return f"is {shown(name)}, which no enabled backend is or lists, {meant(name, dict.fromkeys(known))}"
