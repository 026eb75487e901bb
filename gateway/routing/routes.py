"""Routes: a requested model resolved to peers and policy.

Owns the model table: its wildcards, what backends with `models = "auto"` told, and what [[routes]] says of a model
(`Rule`): shares between backends, and fallbacks. It refuses to pick a peer (`balance`) and to ask backends
(`gateway.upstream.discovery`). One `Routes` is made by `gateway.upstreams`.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from hashlib import blake2b
from itertools import accumulate
from typing import Final, NamedTuple

from gateway.errors import Fault, Kind, Side
from gateway.routing.balance import Balancer
from gateway.routing.peer import Peer
from gateway.routing.retry import RetryBudget

#: What the line begins with that tells which fallback served.
SERVED: Final = b"x-fallback-model: "


class Policy:
    """How the calls of a backend are sent. Seconds; 0 means: no bound."""

    __slots__ = ("balancer", "budget", "first_byte", "heartbeat", "idle", "inject_usage", "on", "total", "tries")

    def __init__(
        self,
        balancer: Balancer,
        *,
        tries: int,
        on: Iterable[str | int],
        budget: RetryBudget,
        inject_usage: bool,
        first_byte: float,
        idle: float,
        total: float,
        heartbeat: float = 0.0,
    ) -> None:
        self.balancer = balancer
        self.tries = tries
        #: What is tried again: causes (`retry.CAUSES`) and statuses.
        self.on = frozenset(on)
        self.budget = budget
        self.inject_usage = inject_usage
        self.first_byte = first_byte
        self.idle = idle
        self.total = total
        self.heartbeat = heartbeat


class Group:
    """A backend as the model table sees it: its peers, its policy and the models it serves."""

    __slots__ = ("auto", "known", "models", "name", "passthrough", "peers", "policy")

    def __init__(
        self,
        name: str,
        peers: Sequence[Peer],
        policy: Policy,
        models: dict[str, str],
        *,
        auto: bool = False,
        passthrough: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.peers = tuple(peers)
        self.policy = policy
        #: Client's name -> upstream's name; both may be patterns where they are equal.
        self.models = models
        self.auto = auto
        #: Whether `models` is complete: an auto backend is not known before it answered once.
        self.known = not auto
        self.passthrough = tuple(passthrough)


class Share(NamedTuple):
    """One target of a rule: a backend, and its weight among the targets."""

    backend: str
    weight: int


class Rule(NamedTuple):
    """What is said of one model, or of those that match a pattern.

    Without *shares* the backends serve it that list it. *fallbacks* are models, or backends by name.
    """

    model: str
    shares: tuple[Share, ...] = ()
    fallbacks: tuple[str, ...] = ()


class Route:
    """One model's way: made when the table is built, shared by all its calls."""

    __slots__ = (
        "choices",
        "fallbacks",
        "groups",
        "label",
        "peers",
        "policy",
        "renames",
        "served_line",
        "serves",
        "tries",
    )

    def __init__(
        self,
        label: str,
        groups: Sequence[Group],
        renames: Mapping[str, str] | None,
        *,
        serves: str = "",
        fallbacks: tuple[Route, ...] = (),
        choices: Choices | None = None,
    ) -> None:
        #: The model as metrics name it: a configured name or pattern, or "other".
        self.label = label
        self.groups = tuple(groups)
        self.peers = tuple(peer for group in groups for peer in group.peers)
        #: The first backend's policy holds where several backends serve one model.
        self.policy = groups[0].policy
        self.tries = self.policy.tries
        #: Backend's name -> the model's name there; None where no backend renames it.
        self.renames = renames
        #: Where this is a fallback: the model or backend that it was configured as.
        self.serves = serves
        self.served_line = SERVED + serves.encode("latin-1", "replace") + b"\r\n" if serves else b""
        #: Where a call goes on that fails here: the first of them, which has the others as its own fallbacks.
        self.fallbacks = fallbacks
        #: Routes between which calls are divided, this one being none of them then.
        self.choices = choices

    def choose(self, id: bytes) -> Route:
        """The route of the call with this *id*: always the same one. Only where there are `choices`."""
        assert self.choices is not None
        return self.choices.choose(id)

    def __repr__(self) -> str:
        return f"<Route {self.label} -> {', '.join(peer.url for peer in self.peers)}>"


class Choices(NamedTuple):
    """Routes with their weights, added up."""

    bounds: tuple[int, ...]
    routes: tuple[Route, ...]

    def choose(self, id: bytes) -> Route:
        """By a hash of *id*: a client that sends its call again under the same id meets the same backend."""
        number = int.from_bytes(blake2b(id, digest_size=8).digest(), "little")
        return self.routes[bisect(self.bounds, number % self.bounds[-1])]


class Routes:
    """The model table. Exact names win over patterns, longer patterns over shorter ones, rules over what is listed."""

    MEMO_LIMIT: Final = 1024
    MEMO_NAME_LIMIT: Final = 128

    def __init__(
        self,
        groups: Iterable[Group],
        default: str = "",
        rules: Iterable[Rule] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """*default*: the backend of models that nobody lists. *aliases*: a model's name -> a model's or backend's."""
        self.groups = {group.name: group for group in groups}
        self._default = default
        self._rules = {rule.model: rule for rule in rules}
        self._pattern_rules = sorted((rule for rule in self._rules.values() if _is_pattern(rule.model)), key=_length)
        self._aliases = dict(aliases or {})
        #: The routes of models that are named without a pattern.
        self.exact: dict[str, Route] = {}
        #: The same without rules and aliases; and the routes of patterns.
        self._listed: dict[str, Route] = {}
        self._patterns: list[tuple[str, Route]] = []
        #: Names that matched a pattern or took the default. Bounded, because clients choose the names.
        self._memo: dict[str, Route] = {}
        self._owners: dict[str, str] = {}
        self._build()

    def find(self, model: str) -> Route | None:
        """The route of *model*; None where nobody serves it."""
        return self.exact.get(model) or self._memo.get(model) or self._remember(model, self._resolve(model))

    def learn(self, name: str, models: Iterable[str]) -> None:
        """Backend *name* told which models it serves."""
        group = self.groups[name]
        group.models = {model: model for model in models}
        group.known = True
        self._build()

    def regroup(self, name: str, peers: Iterable[Peer]) -> None:
        """Backend *name* has these *peers* now. Running calls keep the routes that they began with."""
        self.groups[name].peers = tuple(peers)
        self._build()

    def of_backend(self, name: str) -> Route | None:
        """The route to a backend by its own name, for paths without a model."""
        group = self.groups.get(name)
        return Route("", [group], None) if group is not None else None

    @property
    def complete(self) -> bool:
        """False while some backend has not yet told its models."""
        return all(group.known for group in self.groups.values())

    def listed(self) -> list[tuple[str, str]]:
        """(model, backend's name) of every model that has a name of its own, in order of configuration."""
        return list(self._owners.items())

    # How a name becomes a route.

    def _resolve(self, model: str) -> Route | None:
        """What rules, aliases and backends make of *model*."""
        rule = self._rules.get(model) or self._pattern_rule(model)
        if rule is not None:
            return self._ruled(rule, model)
        alias = self._aliases.get(model)
        return self._serve(alias, model, model) if alias is not None else self._serving(model)

    def _pattern_rule(self, model: str) -> Rule | None:
        return next((rule for rule in self._pattern_rules if fnmatchcase(model, rule.model)), None)

    def _serving(self, model: str) -> Route | None:
        """The route of *model* as the backends list it."""
        route = self._listed.get(model)
        if route is not None:
            return route
        for pattern, route in self._patterns:
            if fnmatchcase(model, pattern):
                return route
        return Route("other", [self.groups[self._default]], None) if self._default else None

    def _serve(self, name: str, model: str, label: str, serves: str = "") -> Route | None:
        """A route of *name*, a model or a backend, for calls that ask for *model*."""
        name = self._aliases.get(name, name)
        route = self._serving(name) if name not in self.groups or name in self._listed else None
        if route is not None:
            renames = {group.name: (route.renames or {}).get(group.name, name) for group in route.groups}
            return Route(label, route.groups, renames, serves=serves)
        return self._at(name, model, label, serves) if name in self.groups else None

    def _at(self, name: str, model: str, label: str, serves: str = "") -> Route | None:
        """A route to the backend *name* for calls that ask for *model*: the first that it serves, if not that one."""
        group = self.groups[name]
        known = group.models.get(model)
        if known is None and not any(fnmatchcase(model, pattern) for pattern in group.models):
            known = next((there for there in group.models.values() if not _is_pattern(there)), None)
        return Route(label, [group], {name: known} if known is not None else None, serves=serves)

    def _ruled(self, rule: Rule, model: str) -> Route | None:
        """The route of *model* by its *rule*."""
        if not rule.shares:
            base = self._serving(model)
            if base is None:
                return None
            fallbacks = self._chain(rule.fallbacks, base.label, model)
            return Route(base.label, base.groups, base.renames, fallbacks=fallbacks)
        shares = [share for share in rule.shares if share.backend in self.groups]
        routes = []
        for share in shares:
            others = [other.backend for other in shares if other is not share and other.weight]
            routes.append(self._share(share, rule, model, others))
        bounds = tuple(accumulate(share.weight for share in shares))
        groups = [self.groups[share.backend] for share in shares]
        return Route(rule.model, groups, None, choices=Choices(bounds, tuple(routes)))

    def _share(self, share: Share, rule: Rule, model: str, others: Sequence[str]) -> Route:
        """One target's route: where it fails, the *others* are tried, and then the fallbacks."""
        route = self._at(share.backend, model, rule.model)
        assert route is not None
        chain = self._chain(rule.fallbacks, rule.model, model)
        for name in reversed(others):
            other = self._at(name, model, rule.model)
            assert other is not None
            other.fallbacks = chain
            chain = (other, *chain)
        route.fallbacks = chain
        return route

    def _chain(self, names: Sequence[str], label: str, model: str) -> tuple[Route, ...]:
        """The routes of fallbacks; each has those after it as its own."""
        chain: tuple[Route, ...] = ()
        for name in reversed(names):
            route = self._serve(name, model, label, serves=name)
            if route is not None:
                route.fallbacks = chain
                chain = (route, *chain)
        return chain

    def _remember(self, model: str, route: Route | None) -> Route | None:
        if route is not None and len(model) <= self.MEMO_NAME_LIMIT:
            if len(self._memo) >= self.MEMO_LIMIT:
                self._memo.clear()
            self._memo[model] = route
        return route

    def _build(self) -> None:
        serving: dict[str, list[Group]] = {}
        for group in self.groups.values():
            for model in group.models:
                serving.setdefault(model, []).append(group)
        self._listed = {}
        self._patterns = []
        self._memo = {}
        self._owners = {}
        for model, groups in serving.items():
            renames = {group.name: group.models[model] for group in groups if group.models[model] != model}
            route = Route(model, groups, renames or None)
            # Patterns are the configuration's to give: a backend that lists "*" must not become everybody's.
            if _is_pattern(model) and not all(group.auto for group in groups):
                self._patterns.append((model, route))
            else:
                self._listed[model] = route
                self._owners[model] = groups[0].name
        self._patterns.sort(key=lambda entry: -len(entry[0]))
        self.exact = dict(self._listed)
        for model in [*self._listed, *self._rules, *self._aliases]:
            if _is_pattern(model) and model not in self._listed:
                continue
            resolved = self._resolve(model)
            if resolved is not None:
                self.exact[model] = resolved
                self._owners.setdefault(model, resolved.groups[0].name)


def why_not_served(model: str, route: Route | None, routes: Routes) -> Fault:
    """Why a call for *model* is refused: nobody serves it, or, where there is a *route*, its key may not use it."""
    model = model[:128]
    if not model:
        return Fault(Side.CLIENT, Kind.MISSING_MODEL, "The request names no model.", param="model")
    if route is not None:
        text = f"This key may not use the model '{model}'."
        return Fault(Side.CLIENT, Kind.MODEL_FORBIDDEN, text, param="model")
    if not routes.complete:
        text = "A backend has not yet told which models it serves; try again soon."
        return Fault(Side.GATEWAY, Kind.MODELS_UNKNOWN, text)
    return Fault(Side.CLIENT, Kind.UNKNOWN_MODEL, f"The model '{model}' does not exist.", param="model")


def _length(rule: Rule) -> int:
    return -len(rule.model)


def _is_pattern(model: str) -> bool:
    return "*" in model or "?" in model or "[" in model
