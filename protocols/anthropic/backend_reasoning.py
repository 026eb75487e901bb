"""How hard a model is to think: OpenAI's `reasoning_effort` as Anthropic's API says it.

Owns that rule. `none` turns thinking off. Any other effort is `output_config.effort` (`minimal` is `low` there), which
every model since Claude Opus 4.5 and Sonnet 4.6 takes and which governs thinking, text and calls alike. The models
before them, a list that is closed, know budgets only: `thinking` with a number of tokens, at least 1024 and less than
`max_tokens`; where an answer has no room for that, there is no thinking.
Sources: https://platform.claude.com/docs/en/build-with-claude/effort and .../extended-thinking.
"""

from __future__ import annotations

import re
from typing import Any, Final

from protocols.dialect import JsonObject, Unmappable

_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
#: Tokens of thinking for models without efforts.
_BUDGETS: Final = {"low": 1024, "medium": 4096, "high": 16384, "xhigh": 32768, "max": 32768}
#: The least that the API takes.
_LEAST_BUDGET: Final = 1024
#: Models that think and know no efforts: 3.7 Sonnet, Opus and Sonnet 4, Opus 4.1, Sonnet 4.5, Haiku 4.5. With whatever
#: stands before and behind: clouds sell them as `us.anthropic.claude-...-v1:0`.
_BEFORE_EFFORTS: Final = re.compile(
    r"claude-(?:3-7-sonnet|(?:opus|sonnet)-4(?:-[01])?(?!-\d{1,2}(?!\d))|(?:sonnet|haiku)-4-5)(?!\d)"
)


def effort_of(value: Any) -> str | None:
    """Anthropic's name of an effort, or `none`; None where nothing is asked for. Raises `Unmappable`."""
    if value is None:
        return None
    if value == "none":
        return "none"
    if not isinstance(value, str) or value not in _EFFORTS:
        names = ", ".join(["none", *_EFFORTS])
        raise Unmappable(f"'reasoning_effort' must be one of {names}", "reasoning_effort")
    return _EFFORTS[value]


def reasoning_fields(effort: str | None, model: str, max_tokens: int) -> tuple[JsonObject | None, str | None]:
    """What goes to *model* as `thinking` and as `output_config.effort`."""
    if effort is None:
        return None, None
    if effort == "none":
        return {"type": "disabled"}, None
    if _BEFORE_EFFORTS.search(model) is None:
        return None, effort
    if max_tokens <= _LEAST_BUDGET:
        return None, None
    # Half of the answer is left for its text.
    budget = max(_LEAST_BUDGET, min(_BUDGETS[effort], max_tokens // 2))
    return {"type": "enabled", "budget_tokens": budget}, None
