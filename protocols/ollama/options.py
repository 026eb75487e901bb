"""Sampling and limits: Ollama's `options` to the hub's fields, and back.

Owns the table of both. It refuses whatever is not under `options`. Source: `api.Options` of the server v0.33 and
docs/modelfile.mdx; the SDK 0.6.3 still has names that the server dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from protocols.dialect import Dropped, JsonObject, Unmappable
from protocols.ollama import fields

#: The hub's name, Ollama's, and what the value is.
_SAME: Final[tuple[tuple[str, str, Callable[[Any, str], Any]], ...]] = (
    ("temperature", "temperature", fields.number),
    ("top_p", "top_p", fields.number),
    ("top_k", "top_k", fields.integer),
    ("min_p", "min_p", fields.number),
    ("seed", "seed", fields.integer),
    ("frequency_penalty", "frequency_penalty", fields.number),
    ("presence_penalty", "presence_penalty", fields.number),
    ("repetition_penalty", "repeat_penalty", fields.number),
)

#: Options that change what is sampled and that the hub has no word for, with the value at which they change nothing:
#: the server's default. The last three its changes 8515 and 10574 took away: it logs "invalid option provided" and goes
#: on. Whoever still sets one wants another text than would come.
_ODD: Final = {"typical_p": 1.0, "repeat_last_n": 64, "mirostat": 0, "tfs_z": 1.0, "penalize_newline": True}

#: How a model is held in memory and run, which its backend decides; and mirostat's own terms, which say nothing where
#: it is off (clients with a switch for it send them all the same), and are told with it where it is on.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict", "num_keep"),
        *("numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "embedding_only"),
        *("mirostat_tau", "mirostat_eta"),
    }
)

_KNOWN: Final = frozenset({name for _, name, _ in _SAME} | {"stop", "num_predict"} | _ODD.keys() | _WITHOUT_EFFECT)


#: What Ollama's clients call fields of the hub.
NAMES: Final[Mapping[str, str]] = {
    **{name: f"options.{other}" for name, other, _ in _SAME},
    "stop": "options.stop",
    "stop[]": "options.stop[]",
    "max_completion_tokens": "options.num_predict",
    "max_tokens": "options.num_predict",
    "response_format": "format",
    "reasoning_effort": "think",
}


def to_hub(value: Any, limit: str, dropped: Dropped) -> JsonObject:
    """The hub's fields for `options`; *limit* is the hub's name of num_predict (its tasks differ).

    A num_predict of 0 or less is no limit, which is the default; nothing is said then.
    """
    options = fields.optional_object(value, "options")
    hub: JsonObject = {}
    for name, key, take in _SAME:
        found = options.get(key)
        if found is not None:
            hub[name] = take(found, f"options.{key}")
    stop = fields.texts(options.get("stop"), "options.stop")
    if stop:
        hub["stop"] = stop
    if options.get("num_predict") is not None:
        most = fields.integer(options["num_predict"], "options.num_predict")
        if most > 0:
            hub[limit] = most
    for name, default in _ODD.items():
        if options.get(name) not in (None, default):
            dropped.leave_out(f"options.{name}", "has no equivalent at the model's backend")
    fields.refuse_rest(options, _KNOWN, dropped, "is no option that can be translated", "options.")
    return hub


#: The hub's fields that `from_hub` reads.
HUB_FIELDS: Final = frozenset({name for name, _, _ in _SAME} | {"stop", "max_tokens", "max_completion_tokens"})


def from_hub(hub: JsonObject) -> JsonObject:
    """The `options` that a request of the hub asks for. What it does not say is the model's (its Modelfile's)."""
    options: JsonObject = {}
    for name, key, take in _SAME:
        found = hub.get(name)
        if found is not None:
            options[key] = take(found, name)
    stop = hub.get("stop")
    if stop is not None:
        stops = [stop] if isinstance(stop, str) else fields.texts(stop, "stop")
        if stops:
            options["stop"] = stops
    for name in ("max_completion_tokens", "max_tokens"):
        if hub.get(name) is not None:
            most = fields.integer(hub[name], name)
            if most < 1:
                raise Unmappable(f"'{name}' must be at least 1", name)  # to Ollama it would mean "no limit"
            options["num_predict"] = most
            break
    return options
