"""The quick form: a few `GATEWAY_*` variables that configure a whole gateway.

Owns these names, and says so of those that are promised but not built. It refuses judging values (`rules`) and
routes (`policies`).
Names that it does not know belong to others (an orchestrator sets GATEWAY_SERVICE_HOST). Called by `load`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.config import policies
from gateway.config.environment import add_keys
from gateway.config.faults import Faults
from gateway.config.tree import Leaf, Table, element_key, grow

UPSTREAMS: Final = "GATEWAY_UPSTREAMS"
API_KEYS: Final = "GATEWAY_API_KEYS"
DEFAULT_UPSTREAM: Final = "GATEWAY_DEFAULT_UPSTREAM"

#: Variable -> the key of [defaults.breaker] that it sets.
BREAKER: Final = {
    "GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES": "max_failures",
    "GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS": "reset",
}

_NAMES: Final = (UPSTREAMS, API_KEYS, DEFAULT_UPSTREAM, policies.FALLBACKS, policies.ROUTE_POLICIES, *BREAKER)
_SCHEMES: Final = ("http", "https", "mock", "litellm")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

#: Promised for a later version. Ignoring one would drop a limit, a policy or a mask without a word.
NOT_SUPPORTED: Final = (
    "GATEWAY_RATE_LIMIT_PER_MINUTE",
    "GATEWAY_REQUEST_TIMEOUT_SECONDS",
    "GATEWAY_REDIS_URL",
    "GATEWAY_API_KEY_POLICIES",
    "GATEWAY_JWT_SECRET",
    "GATEWAY_JWT_PUBLIC_KEY",
    "GATEWAY_JWT_ALGORITHMS",
    "GATEWAY_JWT_ISSUER",
    "GATEWAY_JWT_AUDIENCE",
    "GATEWAY_PII_MASKING_ENABLED",
    "GATEWAY_PII_HASH_SALT",
    "GATEWAY_AUDIT_LOGGING_ENABLED",
    "GATEWAY_SHADOW_ENABLED",
    "GATEWAY_SHADOW_PERCENT",
    "GATEWAY_SHADOW_TARGET",
)


#: The likeliest slips. Other GATEWAY_* variables may be somebody else's (Kubernetes sets some for a service "gateway").
_SINGULAR: Final = {"GATEWAY_UPSTREAM", "GATEWAY_API_KEY"}


def given(environ: Mapping[str, str]) -> bool:
    """True where the quick form is used. An empty variable counts as none: compose files pass them on so."""
    return any(environ.get(name) for name in _NAMES)


def apply(root: Table, environ: Mapping[str, str], faults: Faults) -> None:
    """Append to *root* the backends, keys and routes that the quick form names."""
    for name in NOT_SUPPORTED:
        if environ.get(name):
            faults.add(f"environment {name}", "", "not supported by this version")
    for name in _SINGULAR & environ.keys():
        faults.add(f"environment {name}", "", f'is not a variable of the quick form, did you mean "{name}S"?')
    for part in environ.get(UPSTREAMS, "").split(";"):
        if part.strip():
            _add_upstream(root, part.strip(), faults)
    add_keys(root, environ, API_KEYS, "gateway")
    default = environ.get(DEFAULT_UPSTREAM, "").strip()
    if default:
        leaf = Leaf(f"environment {DEFAULT_UPSTREAM}", "routing.default_backend", default)
        root.table("routing").entries["default_backend"] = leaf
    for variable, key in BREAKER.items():
        text = environ.get(variable, "").strip()
        if text:
            value = int(text) if text.isdecimal() else text
            leaf = Leaf(f"environment {variable}", f"defaults.breaker.{key}", value)
            root.table("defaults").table("breaker").entries[key] = leaf
    policies.apply(root, environ, faults)


def _add_upstream(root: Table, part: str, faults: Faults) -> None:
    name, equals, url = (piece.strip() for piece in part.partition("="))
    source = f"environment {UPSTREAMS}"
    raw = {"name": name, "endpoints": [url], "models": [name]}
    key = element_key("backends", raw, 0)
    scheme = _SCHEME.match(url)
    if not name or not equals or not scheme:
        # not shown: a URL may hold a password
        faults.add(source, "", "has a part that is not an upstream, expected name=url;name=url")
    elif scheme[1].lower() not in _SCHEMES:
        said = f"{scheme[1]}:// is not supported by this version, expected http://, https://, mock:// or litellm://"
        faults.add(source, f"{key}.endpoints", said)
    else:
        root.array("backends").items.append(grow(raw, source, key))
