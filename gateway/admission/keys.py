"""Who calls: API keys, held as digests, and what each of them may use.

Owns `Keyring` and `Principal`. It refuses to find the key in a request (`front`) and to read secrets
(`config.secrets`). Made by `gateway.generation`, once per generation.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from typing import Final

from gateway.config.schema import LONGEST_KEY, Key

#: Answers remembered per key. Models are the client's words: their number and their length are bounded.
_MEMO_SIZE: Final = 256
_MEMO_LENGTH: Final = 128

_WILD: Final = re.compile(r"[*?\[]")


class Principal:
    """The holder of one key."""

    __slots__ = ("_digest", "_every", "_exact", "_pattern", "judged", "name", "passthrough")

    def __init__(self, name: str, digest: bytes, allowed_models: Iterable[str], passthrough: bool) -> None:
        allowed = frozenset(allowed_models)
        wild = sorted(model for model in allowed if _WILD.search(model))
        # given
        self.name = name
        #: True where paths may be used that a backend merely passes on.
        self.passthrough = passthrough
        self._digest = digest
        self._every = "*" in allowed
        self._exact = allowed.difference(wild)
        self._pattern = re.compile("|".join(map(fnmatch.translate, wild))) if wild else None
        # observed
        #: What `may_use` said before: looked into first where each call counts.
        self.judged: dict[str, bool] = {}

    def may_use(self, model: str) -> bool:
        """True where *model* is one of the allowed names, or matches one of the allowed wildcards."""
        known = self.judged.get(model)
        return known if known is not None else self._judge(model)

    def _judge(self, model: str) -> bool:
        allowed = self._every or model in self._exact
        if not allowed and self._pattern is not None:
            allowed = self._pattern.match(model) is not None
        if len(model) <= _MEMO_LENGTH:
            if len(self.judged) >= _MEMO_SIZE:
                self.judged.clear()
            self.judged[model] = allowed
        return allowed

    def __repr__(self) -> str:
        return f"<Principal {self.name}>"


class Keyring:
    """Every key of one generation."""

    __slots__ = ("_holders", "_nobody")

    def __init__(self, keys: Iterable[Key]) -> None:
        """*keys* as loaded: each with its `sha256`. Raises ValueError for one without."""
        self._holders: dict[bytes, Principal] = {}
        for key in keys:
            digest = bytes.fromhex(key.sha256)
            if len(digest) != hashlib.sha256().digest_size:
                raise ValueError(f"key {key.name} has no SHA-256")
            self._holders[digest] = Principal(key.name, digest, key.allowed_models, key.passthrough)
        self._nobody = Principal("", os.urandom(32), (), False)

    def identify(self, presented: bytes) -> Principal | None:
        """Who holds the key *presented*; None for nobody. It takes the same time for either."""
        if len(presented) > LONGEST_KEY:
            return None
        digest = hashlib.sha256(presented).digest()
        # The lookup tells no more than a digest's bucket. The comparison is made for a stranger too.
        holder = self._holders.get(digest, self._nobody)
        return holder if hmac.compare_digest(digest, holder._digest) else None

    def __len__(self) -> int:
        return len(self._holders)

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._holders)}>"
