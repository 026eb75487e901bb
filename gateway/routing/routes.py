"""Routes: a requested model resolved to peers and policy.

Owns the model table, its wildcards and what backends with `models = "auto"` told. It refuses to pick a peer
(`balance`) and to ask backends (`gateway.upstream.discovery`). One `Routes` is made by `gateway.upstreams`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from gateway.routing.balance import Balancer
from gateway.routing.peer import Peer


class Policy:
    """How the calls of a backend are sent. Seconds; 0 means: no bound."""

    __slots__ = ("balancer", "first_byte", "idle", "inject_usage", "total", "tries")

    def __init__(
        self,
        balancer: Balancer,
        *,
        tries: int,
        inject_usage: bool,
        first_byte: float,
        idle: float,
        total: float,
    ) -> None:
        self.balancer = balancer
        self.tries = tries
        self.inject_usage = inject_usage
        self.first_byte = first_byte
        self.idle = idle
        self.total = total


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


class Route:
    """One model's way: made when the table is built, shared by all its calls."""

    __slots__ = ("label", "peers", "policy", "renames", "tries")

    def __init__(self, label: str, groups: Sequence[Group], renames: dict[str, str] | None) -> None:
        #: The model as metrics name it: a configured name or pattern, or "other".
        self.label = label
        self.peers = tuple(peer for group in groups for peer in group.peers)
        #: The first backend's policy holds where several backends serve one model.
        self.policy = groups[0].policy
        self.tries = self.policy.tries
        #: Backend's name -> the model's name there; None where no backend renames it.
        self.renames = renames

    def __repr__(self) -> str:
        return f"<Route {self.label} -> {', '.join(peer.url for peer in self.peers)}>"


class Routes:
    """The model table. Exact names win over patterns, longer patterns over shorter ones."""

    MEMO_LIMIT: Final = 1024
    MEMO_NAME_LIMIT: Final = 128

    def __init__(self, groups: Iterable[Group], default: str = "") -> None:
        self.groups = {group.name: group for group in groups}
        self._default = default
        #: The routes of models that are named without a pattern.
        self.exact: dict[str, Route] = {}
        self._patterns: list[tuple[str, Route]] = []
        #: Names that matched a pattern or took the default. Bounded, because clients choose the names.
        self._memo: dict[str, Route] = {}
        self._owners: dict[str, str] = {}
        self._build()

    def find(self, model: str) -> Route | None:
        """The route of *model*; None where nobody serves it."""
        return self.exact.get(model) or self._memo.get(model) or self._find_pattern(model)

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

    def _find_pattern(self, model: str) -> Route | None:
        for pattern, route in self._patterns:
            if fnmatchcase(model, pattern):
                return self._remember(model, route)
        if self._default:
            return self._remember(model, Route("other", [self.groups[self._default]], None))
        return None

    def _remember(self, model: str, route: Route) -> Route:
        if len(model) <= self.MEMO_NAME_LIMIT:
            if len(self._memo) >= self.MEMO_LIMIT:
                self._memo.clear()
            self._memo[model] = route
        return route

    def _build(self) -> None:
        serving: dict[str, list[Group]] = {}
        for group in self.groups.values():
            for model in group.models:
                serving.setdefault(model, []).append(group)
        self.exact = {}
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
                self.exact[model] = route
                self._owners[model] = groups[0].name
        self._patterns.sort(key=lambda entry: -len(entry[0]))


def _is_pattern(model: str) -> bool:
    return "*" in model or "?" in model or "[" in model
