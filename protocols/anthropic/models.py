"""The list of models in Anthropic's shape (GET /v1/models): written for clients page by page, read from backends.

A request for it is Anthropic's where it has an anthropic-version header: the path is OpenAI's too.

Source: Anthropic's API reference, "List models", `types/model_info.py` and `types/model_list_params.py` of its Python
SDK 2.12.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import parse_qs

import msgspec
import orjson

from protocols.dialect import JsonObject, Unmappable

#: Where a backend lists its models: as many at once as the vendor allows.
LIST_TARGET: Final = b"/v1/models?limit=1000"

_LIMIT: Final = 20
_LIMIT_MOST: Final = 1000


class _Entry(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Entry]


_decode: Final = msgspec.json.Decoder(_List).decode


class Page(NamedTuple):
    """The part of a list that is asked for."""

    limit: int = _LIMIT
    after: str | None = None
    before: str | None = None
    #: Every model here is active: nothing is left where only others are asked for.
    wants_active: bool = True


def read_page(query: str) -> Page:
    """The page that *query* (without its question mark) asks for; what else stands there is left to others.

    Raises `Unmappable`.
    """
    try:
        values = parse_qs(query, max_num_fields=64)
    except ValueError:
        raise Unmappable("the query cannot be read") from None
    limit = values["limit"][-1] if "limit" in values else str(_LIMIT)
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= _LIMIT_MOST):
        raise Unmappable(f"'limit' must be from 1 to {_LIMIT_MOST}", "limit")
    after, before = values.get("after_id", [None])[-1], values.get("before_id", [None])[-1]
    if after is not None and before is not None:
        raise Unmappable("'before_id' and 'after_id' exclude each other", "before_id")
    stages = values.get("lifecycle[]", []) + values.get("lifecycle", [])
    return Page(int(limit), after, before, not stages or "active" in stages)


def model_entry(name: str, created: int) -> JsonObject:
    """One model as Anthropic lists it, alone or in a list; *created* in seconds since the epoch."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": rfc3339(created),
        "lifecycle": "active",
    }


def models_body(entries: Iterable[JsonObject], page: Page) -> bytes:
    """The *page* of *entries*. Raises `Unmappable` where it begins or ends at a model that is not among them."""
    listed = list(entries) if page.wants_active else []
    if page.before is not None:
        end = _place(listed, page.before, "before_id")
        start = max(0, end - page.limit)
        has_more = start > 0
    else:
        start = 0 if page.after is None else _place(listed, page.after, "after_id") + 1
        end = start + page.limit
        has_more = end < len(listed)
    data = listed[start:end]
    return orjson.dumps(
        {
            "data": data,
            "has_more": has_more,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }
    )


def _place(entries: list[JsonObject], name: str, param: str) -> int:
    for index, entry in enumerate(entries):
        if entry["id"] == name:
            return index
    raise Unmappable(f"'{param}' names no model of this list", param)


def model_body(entry: JsonObject) -> bytes:
    """The answer of GET /v1/models/{id}."""
    return orjson.dumps(entry)


def parse_models(body: bytes) -> tuple[str, ...]:
    """The names in a backend's list. Raises ValueError where it is not such a list.

    Left out are names that a configuration could not give either: empty, with control characters or spaces around.
    """
    try:
        names = [entry.id for entry in _decode(body).data]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a list of models: {error}") from None
    return tuple(name for name in names if name and name.isprintable() and name == name.strip())


def rfc3339(seconds: int) -> str:
    """The time in UTC, from Unix seconds: years of March to February make leap days the last of their year.

    Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    days, second = divmod(seconds, 86_400)
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = year_of_era + era * 400 + (month <= 2)
    return f"{year:04d}-{month:02d}-{day:02d}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
