"""Values of the model table: a backend and its policy, what is said of a model, and the way that a call goes.

Owns these, and which of several targets a call meets. It refuses to look a model up (`routes`). Groups and rules are
made by `gateway.upstreams`, routes by the table, once for all calls.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Final, NamedTuple

from gateway.routing.balance import Balancer
from gateway.routing.peer import Peer
from gateway.routing.retry import RetryBudget
from gateway.routing.speech import UNTOUCHED, Speech

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

    __slots__ = ("auto", "known", "models", "name", "passthrough", "peers", "policy", "speech")

    def __init__(
        self,
        name: str,
        peers: Sequence[Peer],
        policy: Policy,
        models: dict[str, str],
        *,
        auto: bool = False,
        passthrough: Sequence[str] = (),
        speech: Speech = UNTOUCHED,
    ) -> None:
        self.name = name
        self.peers = tuple(peers)
        self.policy = policy
        self.speech = speech
        #: Client's name -> upstream's name; both may be patterns where they are equal.
        self.models = models
        self.auto = auto
        #: Whether `models` is complete: an auto backend is not known before it answered once.
        self.known = not auto
        self.passthrough = tuple(passthrough)

    def name_of(self, model: str) -> str:
        """What *model* is called here; a backend that does not have it is asked for the first that it has."""
        known = self.models.get(model)
        if known is not None:
            return known
        patterns = [name for name in self.models if not self.auto and is_pattern(name) and fnmatchcase(model, name)]
        if patterns:
            pattern = max(patterns, key=len)
            return model if self.models[pattern] == pattern else self.models[pattern]
        return next((there for there in self.models.values() if self.auto or not is_pattern(there)), model)


class Share(NamedTuple):
    """One target of a rule: a backend, and its weight among the targets."""

    backend: str
    weight: int


class Rule(NamedTuple):
    """What is said of one model, or of those that match a pattern.

    Without *shares* the backends serve it that list it. *fallbacks* are models, or backends by name. *lenient*: what a
    backend has no word for is left out of its requests.
    """

    model: str
    shares: tuple[Share, ...] = ()
    fallbacks: tuple[str, ...] = ()
    lenient: bool = False


class Route:
    """One model's way: made when the table is built, shared by all its calls."""

    __slots__ = (
        "choices",
        "fallbacks",
        "groups",
        "label",
        "native",
        "peers",
        "policy",
        "renames",
        "served_line",
        "serves",
        "speech",
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
        self.speech = groups[0].speech.share(group.speech for group in groups[1:])
        #: Doors whose calls are relayed untouched.
        self.native = self.speech.native
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


def is_pattern(name: str) -> bool:
    """Whether *name* is a wildcard of `fnmatch`; configuration is judged by the same (`gateway.config.text`)."""
    return "*" in name or "?" in name or "[" in name
