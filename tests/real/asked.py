"""What the tests of this folder ask, whichever client asks it.

Owns questions whose answers can be judged though the model says nonsense: forms and arguments of which no value is a
free text, so that what a grammar lets through is short and whole. It refuses clients and judgement (the tests).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import pydantic

HELLO: Final[Any] = [{"role": "user", "content": "Hello"}]


class Person(pydantic.BaseModel):
    """A form to be filled in."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: Literal["Ada", "Grace"]
    age: int
    is_poet: bool


class Weather(pydantic.BaseModel):
    """Tell the weather of the next days."""

    model_config = pydantic.ConfigDict(extra="forbid")

    city: Literal["Bern", "Oslo"]
    days: int


#: Tools as OpenAI and Ollama have them, and as Anthropic has them.
TOOL: Final[Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "Tell the weather.", "parameters": Weather.model_json_schema()},
}
INPUT_TOOL: Final[Any] = {
    "name": "weather",
    "description": "Tell the weather.",
    "input_schema": Weather.model_json_schema(),
}
#: A form that takes the model longer than anybody waits: a client that leaves, leaves in the middle.
LONG_FORM: Final[Any] = {
    "type": "object",
    "properties": {
        "rows": {
            "type": "array",
            "minItems": 300,
            "items": {"type": "array", "minItems": 300, "items": {"type": "boolean"}},
        }
    },
    "required": ["rows"],
    "additionalProperties": False,
}
