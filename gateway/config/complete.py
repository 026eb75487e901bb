"""What a configuration gets without writing it: inheritance from [defaults] and of the balance from [routing],
the mock backend, the key `dev-key`.

Owns these. It refuses to judge them (`rules` does not let `dev-key` serve other hosts). Called by
`load`.
"""

from __future__ import annotations

from typing import Final

from gateway.config.schema import Defaults
from gateway.config.shape import fields
from gateway.config.tree import BUILT_IN, Array, Leaf, Node, Table, element_key, grow, overlay
from gateway.config.urls import TASKS

DEV_KEY: Final = "dev-key"
MOCK: Final = "mock"

#: Protocols whose servers tell how many requests they have, and how often they are asked.
TELLING: Final = frozenset({"vllm", "sglang", "tgi", "llamacpp"})
LOAD_INTERVAL: Final = "2s"

#: The ways to give a token. A backend's own takes the place of an inherited one, however that was given.
_TOKENS: Final = frozenset({"token", "token_env", "token_file"})


def complete(root: Table, *, quick: bool) -> None:
    """Fill in *root*. *quick* tells that the quick form is used: its key is `dev-key` unless one is given."""
    backends = root.entries.get("backends")
    configured = isinstance(backends, Array) and bool(backends.items)
    if backends is None or (isinstance(backends, Array) and not backends.items):
        raw = {"name": MOCK, "protocol": MOCK, "endpoints": ["mock://local"], "models": [MOCK]}
        root.entries["backends"] = grow([raw], BUILT_IN, "backends")
    if (quick or not configured) and _wants_key(root):
        raw_key = {"name": "dev", "key": DEV_KEY}
        key = grow(raw_key, BUILT_IN, element_key("auth.keys", raw_key, 0))
        root.table("auth").array("keys").items.append(key)
    _balance(root)
    if isinstance(backends, Array):
        defaults = _inheritable(root.entries.get("defaults"))
        backends.items[:] = [_completed(item, defaults) for item in backends.items]


def _balance(root: Table) -> None:
    """routing.default_strategy is the balance where [defaults] does not say one."""
    routing = root.entries.get("routing")
    word = routing.entries.get("default_strategy") if isinstance(routing, Table) else None
    if word is not None:
        root.table("defaults").entries.setdefault("balance", word)


def _wants_key(root: Table) -> bool:
    """True where keys are asked for and none is configured."""
    auth = root.table("auth")
    enabled = auth.entries.get("enabled")
    off = isinstance(enabled, Leaf) and enabled.value is False
    keys = auth.entries.get("keys")
    return not off and (keys is None or (isinstance(keys, Array) and not keys.items))


def _inheritable(defaults: Node | None) -> Table:
    """The part of [defaults] that is declared; the rest is told once, where it stands."""
    if not isinstance(defaults, Table):
        return Table(BUILT_IN, "defaults", {})
    known = fields(Defaults)
    entries = {name: node for name, node in defaults.entries.items() if name in known}
    return Table(defaults.source, defaults.key, entries)


def _completed(node: Node, defaults: Table) -> Node:
    """A backend with its protocol, and with what it inherits."""
    if not isinstance(node, Table):
        return node
    endpoints = node.entries.get("endpoints")
    if "protocol" not in node.entries and isinstance(endpoints, Array) and (task := _task(endpoints)):
        node.entries["protocol"] = Leaf(endpoints.source, f"{node.key}.protocol", task)
    auth, inherited = node.entries.get("auth"), defaults.entries.get("auth")
    if isinstance(auth, Table) and isinstance(inherited, Table):
        rest = {name: kept for name, kept in defaults.entries.items() if name != "auth"}
        defaults = Table(defaults.source, defaults.key, rest | {"auth": _inherited_auth(inherited, auth)})
    return _asked(overlay(defaults, node))


def _asked(node: Table) -> Table:
    """*node*; where its servers tell their load they are asked for it, unless something else is written."""
    protocol = node.entries.get("protocol")
    if isinstance(protocol, Leaf) and protocol.value in TELLING:
        load = node.entries.get("load", Table(BUILT_IN, f"{node.key}.load", {}))
        if isinstance(load, Table) and "interval" not in load.entries:
            interval = Leaf(BUILT_IN, f"{node.key}.load.interval", LOAD_INTERVAL)
            node.entries["load"] = Table(load.source, load.key, {**load.entries, "interval": interval})
    return node


def _task(endpoints: Array) -> str:
    """The protocol that the first endpoint's scheme says by itself; empty for those over HTTP."""
    first = endpoints.items[0] if endpoints.items else None
    url = first.entries.get("url") if isinstance(first, Table) else first
    scheme = url.value.lower().partition("://")[0] if isinstance(url, Leaf) and isinstance(url.value, str) else ""
    return scheme if scheme in TASKS else ""


def _inherited_auth(inherited: Table, own: Table) -> Table:
    """What of the inherited credentials holds beside a backend's *own*: one that says "none" takes none."""
    kind = own.entries.get("type")
    if isinstance(kind, Leaf) and kind.value == "none":
        kept: dict[str, Node] = {}
    elif _TOKENS & own.entries.keys():
        kept = {name: node for name, node in inherited.entries.items() if name not in _TOKENS}
    else:
        kept = inherited.entries
    return Table(inherited.source, inherited.key, kept)
