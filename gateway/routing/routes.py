"""Routes: a requested model resolved to peers and policy.

Owns the model table: its wildcards, what backends with `models = "auto"` told, and what [[routes]] and
routing.model_mappings say of a model. It refuses to pick a peer (`balance`) and to ask backends
(`gateway.upstream.discovery`). One `Routes` is made by `gateway.upstreams`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Final, NamedTuple

from gateway.errors import Fault, Kind, Side
from gateway.routing.peer import Peer
from gateway.routing.route import Choices, Group, Route, Rule, Share, is_pattern

#: The label of models that nobody names.
OTHER: Final = "other"


class Match(NamedTuple):
    """What is said of a model's name."""

    #: The model or backend that serves it: what it is mapped to, or its own name.
    name: str
    #: What [[routes]] says of the name, and of what it is mapped to, where that is another entry.
    rules: tuple[Rule, ...]
    #: Between which backends its calls are divided; none: whoever lists the name serves it.
    shares: tuple[Share, ...]
    #: Models, or backends by name.
    fallbacks: tuple[str, ...]


class Routes:
    """The model table.

    Exact names win over patterns, longer patterns over shorter ones. A model that is mapped to another is looked up
    under that name, and what [[routes]] says of it holds over which backends list it.
    """

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
        self._pattern_rules = sorted((rule for rule in self._rules.values() if is_pattern(rule.model)), key=_length)
        self._aliases = dict(aliases or {})
        #: The routes of models that are named without a pattern.
        self.exact: dict[str, Route] = {}
        #: The same by what backends list alone; and the routes of patterns.
        self._listed: dict[str, Route] = {}
        self._patterns: list[tuple[str, Route]] = []
        #: Names that matched a pattern or took the default. Bounded, because clients choose the names.
        self._memo: dict[str, Route] = {}
        self._owners: dict[str, str] = {}
        #: The routes of paths without a model, by the backend's name.
        self._backends: dict[str, Route] = {}
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
        return self._backends.get(name)

    @property
    def complete(self) -> bool:
        """False while some backend has not yet told its models."""
        return all(group.known for group in self.groups.values())

    def listed(self) -> list[tuple[str, str]]:
        """(model, backend's name) of every model that has a name of its own, in order of configuration."""
        return list(self._owners.items())

    # What is said of a name.

    def match(self, model: str) -> Match:
        """What is said of *model*; its own entry's targets win over a mapping, and a mapping over patterns."""
        own = self._rules.get(model)
        name = model if own is not None and own.shares else self._aliases.get(model, model)
        rule = self._rules.get(name) or self._pattern_rule(name)
        rules = tuple(dict.fromkeys(one for one in (own, rule) if one is not None))
        fallbacks = next((one.fallbacks for one in rules if one.fallbacks), ())
        return Match(name, rules, rule.shares if rule is not None else (), fallbacks)

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
        return Route(OTHER, [self.groups[self._default]], None) if self._default else None

    def is_lenient(self, model: str) -> bool:
        """Whether what a backend has no word for is left out of requests for *model*."""
        return any(rule.lenient for rule in self.match(model).rules)

    def listing(self, model: str) -> str | None:
        """Under which name or pattern backends list *model*; `OTHER` where the default takes it, None: nobody does."""
        route = self._serving(model)
        return route.label if route is not None else None

    def is_backend(self, name: str) -> bool:
        """Whether *name*, where either may stand, means a backend: of that name, unless a model is called so too."""
        return name in self.groups and name not in self._listed

    # How a name becomes a route.

    def _resolve(self, model: str) -> Route | None:
        """What rules, mappings and backends make of *model*."""
        match = self.match(model)
        label = match.rules[0].model if match.rules else model
        if match.shares:
            return self._divided(match, model, label)
        if match.name != model:
            base = self._serve(match.name, model, label)
        elif (base := self._serving(model)) is not None and (base.label != OTHER or not match.rules):
            label = base.label
        if not match.fallbacks:
            return base
        chain = self._chain(match, model, label)
        if base is not None:
            return Route(label, base.groups, base.renames, fallbacks=chain)
        # Nobody serves it, or has said so yet: the first fallback does.
        return Route(label, chain[0].groups, None, choices=Choices((1,), chain[:1])) if chain else None

    def _divided(self, match: Match, model: str, label: str) -> Route:
        """The route of *model* between the shares: where one fails, the others are tried, and then the fallbacks."""
        fallbacks = self._chain(match, model, label)
        used = [share.backend for share in match.shares if share.weight]
        routes = []
        for share in match.shares:
            chain = fallbacks
            for name in reversed(used):
                if name != share.backend:
                    chain = (self._at(name, match.name, model, label, fallbacks=chain), *chain)
            routes.append(self._at(share.backend, match.name, model, label, fallbacks=chain))
        bounds = tuple(accumulate(share.weight for share in match.shares))
        return Route(label, [self.groups[name] for name in used], None, choices=Choices(bounds, tuple(routes)))

    def _chain(self, match: Match, model: str, label: str) -> tuple[Route, ...]:
        """The routes of the fallbacks; each has those after it as its own. What is tried before them is left out."""
        before = () if match.shares else (model, match.name)
        targets = {share.backend for share in match.shares if share.weight}
        chain: tuple[Route, ...] = ()
        for name in reversed(match.fallbacks):
            wanted = self._aliases.get(name, name)
            if wanted in before or (wanted in targets and self.is_backend(wanted)):
                continue
            route = self._serve(wanted, model, label, serves=name, fallbacks=chain)
            if route is not None:
                chain = (route, *chain)
        return chain

    def _serve(
        self, name: str, model: str, label: str, *, serves: str = "", fallbacks: tuple[Route, ...] = ()
    ) -> Route | None:
        """A route to *name*, a model or a backend, for calls that ask for *model*; None where nobody serves it."""
        if self.is_backend(name):
            return self._at(name, self._wanted(model), model, label, serves=serves, fallbacks=fallbacks)
        base = self._serving(name)
        if base is None:
            return None
        renames = {group.name: (base.renames or {}).get(group.name, name) for group in base.groups}
        return Route(label, base.groups, renames, serves=serves, fallbacks=fallbacks)

    def _at(
        self, backend: str, name: str, model: str, label: str, *, serves: str = "", fallbacks: tuple[Route, ...] = ()
    ) -> Route:
        """A route to *backend*, which is to serve the model *name*, for calls that ask for *model*."""
        group = self.groups[backend]
        sent = group.name_of(name)
        renames = {backend: sent} if sent != model else None
        return Route(label, [group], renames, serves=serves, fallbacks=fallbacks)

    def _wanted(self, model: str) -> str:
        """The model that a backend is asked for by calls for *model*: what it is mapped to, if that is a model."""
        name = self.match(model).name
        return model if self.is_backend(name) else name

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
        self._backends = {name: Route("", [group], None) for name, group in self.groups.items()}
        for model, listing in serving.items():
            # Backends that tell their models may tell the same one in two dialects: the first one's holds.
            family = listing[0].speech.family
            groups = [group for group in listing if group.speech.family == family]
            renames = {group.name: group.models[model] for group in groups if group.models[model] != model}
            route = Route(model, groups, renames or None)
            # Patterns are the configuration's to give: a backend that lists "*" must not become everybody's.
            if is_pattern(model) and not all(group.auto for group in groups):
                self._patterns.append((model, route))
            else:
                self._listed[model] = route
                self._owners[model] = groups[0].name
        self._patterns.sort(key=lambda entry: -len(entry[0]))
        self.exact = {}
        named = [model for model in (*self._rules, *self._aliases) if not is_pattern(model)]
        for model in dict.fromkeys([*self._listed, *named]):
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
