"""Fields of the hub's request, read with their types judged, and those that TGI has no word for.

Owns the getters and the tables of what is left out, with or without a word. It refuses to know where a field goes
(`completion`, `chat`). Every getter raises `Unmappable`, which names the field, for another type than it should have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from protocols.dialect import Dropped, JsonObject, Unmappable

#: Tokens, as an answer counts them.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

#: TGI's limit where it was started with none (max_stop_sequences), and OpenAI's.
STOPS_LIMIT: Final = 4
#: max_new_tokens is 32 bits wide there, a seed 64.
_COUNT_LIMIT: Final = 2**32 - 1
_SEED_MASK: Final = 2**64 - 1

#: Labels and hints: nothing in the answer's meaning hangs on them.
LABELS: Final = frozenset(
    {
        *("model", "stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "prediction"),
    }
)
#: Value -> left out without a word: what TGI does anyway. Other values of these fields have no equivalent.
DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "min_p": (0,),
    "suffix": ("",),
    "verbosity": ("medium",),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "top_k": (0, -1),
    "repetition_penalty": (1,),
    "typical_p": (1,),
    "best_of": (1,),
    "echo": (False,),
}
_WHY: Final = "has no equivalent in Text Generation Inference"
_WHY_NOT: Final[Mapping[str, str]] = {
    "n": "must be 1: Text Generation Inference gives one answer",
    # Its /v1 adds 2 to it and takes the sum for a repetition penalty (ChatRequest::try_into_generate).
    "presence_penalty": "means something else to Text Generation Inference",
}


def number(hub: JsonObject, name: str, low: float | None = None, high: float | None = None) -> float | None:
    """The number at *name*, from *low* to *high*; None where there is none."""
    value = hub.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unmappable(f"'{name}' must be a number", name)
    if (low is not None and value < low) or (high is not None and value > high):
        raise Unmappable(f"'{name}' is out of range", name)
    return value


def integer(hub: JsonObject, name: str, low: int = 0, high: int = _COUNT_LIMIT) -> int | None:
    """The whole number at *name*, from *low* to *high*; None where there is none."""
    value = hub.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unmappable(f"'{name}' must be a whole number", name)
    if not low <= value <= high:
        raise Unmappable(f"'{name}' must be from {low} to {high}", name)
    return value


def flag(hub: JsonObject, name: str) -> bool:
    """Whether *name* is true; missing and null are False."""
    value = hub.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise Unmappable(f"'{name}' must be true or false", name)


def seed(hub: JsonObject) -> int | None:
    """The seed, as one without a sign: OpenAI's may be negative."""
    value = integer(hub, "seed", -(2**63), _SEED_MASK)
    return None if value is None else value & _SEED_MASK


def stops(hub: JsonObject) -> list[str]:
    """`stop` as a list; empty texts, at which TGI would stop at once, are left out."""
    value = hub.get("stop")
    found = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Unmappable("'stop' must be a string or a list of strings", "stop")
    found = [one for one in found if one]
    if len(found) > STOPS_LIMIT:
        raise Unmappable(f"'stop' may have {STOPS_LIMIT} entries at most", "stop")
    return found


def leave_out_rest(hub: JsonObject, known: frozenset[str], dropped: Dropped) -> None:
    """Judge every field that is not *known*: labels, nulls and defaults go silently, others by *dropped*."""
    for name, value in hub.items():
        if name in known or name in LABELS or value is None:
            continue
        if value in DEFAULTS.get(name, ()) and not (isinstance(value, bool) and name != "echo"):
            continue
        dropped.leave_out(name, _WHY_NOT.get(name, _WHY))


def encode(value: Any) -> bytes:
    """*value* as JSON. Raises `Unmappable` for what is none that can be sent."""
    try:
        return msgspec.json.encode(value)
    except (RecursionError, UnicodeEncodeError, TypeError, ValueError):
        raise Unmappable("the request cannot be written as JSON") from None
