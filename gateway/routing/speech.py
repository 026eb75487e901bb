"""How a backend is spoken to: which doors it answers itself, and by which sides it is asked for the rest.

Owns that value. It refuses the table of protocols (`gateway.presets`) and the sides themselves (`protocols`). Made by
`gateway.upstreams` for each backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from gateway.routing.endpoints import INFERENCE, Endpoint
from protocols.dialect import BackendSide, Dropped, JsonObject, Task, Terms

#: Makes a side: the hub's request, whether a stream is asked for, the call's id, Unix seconds, terms, what is left out.
SideMaker = Callable[[JsonObject, bool, str, int, Terms, Dropped], BackendSide]


class Speech(NamedTuple):
    """*family*: backends of one family say the same in the same words, so that one model may have several of them.

    *native*: doors whose requests are relayed untouched. *able*: doors that may be served at all. *sides*: how it is
    asked in the hub's words, by task. *lines*: for the head of each relayed request that lacks such a field.
    """

    family: str
    native: frozenset[Endpoint]
    able: frozenset[Endpoint]
    sides: Mapping[Task, SideMaker]
    terms: Terms
    lines: Mapping[bytes, bytes]

    def share(self, others: Iterable[Speech]) -> Speech:
        """The same with what all *others* do too: one model's calls go to any of them."""
        native, able = self.native, self.able
        for other in others:
            native &= other.native
            able &= other.able
        return self._replace(native=native, able=able)


ALL_DOORS: Final = frozenset(INFERENCE)
#: Everything is relayed untouched.
UNTOUCHED: Final = Speech("openai", ALL_DOORS, ALL_DOORS, {}, Terms(), {})
