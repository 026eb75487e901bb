"""One scripted server of each protocol behind one gateway, and how each is brought to a scenario.

Owns the servers, the configuration over them, and what each one's model says. It refuses clients (`doors`) and
expectations (the tests). Made by a module's fixture.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.wire import anthropic_server, openai_server
from tests.wire.doors import Asked
from tests.wire.ollama_server import OllamaServer
from tests.wire.process import Configuration
from tests.wire.stage import Stage, backend, configuration
from tests.wire.tgi_server import TgiServer
from tests.wire.upstream import Upstream

#: The protocols, and an OpenAI server that only chats.
HOUSES = ("openai", "chatonly", "anthropic", "ollama", "tgi", "mock")
SCENARIOS = ("echo", "tools", "parallel", "thinking", "stop", "length", "refusal")
#: What the models of Ollama are called behind the gateway.
_OLLAMA = {"thinking": "qwen3", "image": "llava", "embed": "all-minilm"}


class Says(NamedTuple):
    """What a house's model says to a scenario."""

    text: Any = ""
    thought: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    finish: str = "stop"


ZURICH = {"city": "Zürich", "days": 2}
KOELN = {"city": "Köln", "days": 7}
_ONE = (("weather", ZURICH),)
_BOTH: tuple[tuple[str, Any], ...] = (*_ONE, ("now", {}))

#: What is said in answer to "say: Grüße", by scenario and house; what is not here it cannot do.
ANSWERS: dict[str, dict[str, Says]] = {
    "echo": {
        "openai": Says("You said: say: Grüße"),
        "anthropic": Says("You said: say: Grüße"),
        "ollama": Says("Grüße"),
        "tgi": Says("You said: Grüße"),
        "mock": Says("You said: Grüße"),
    },
    "tools": {
        "openai": Says("", calls=_ONE, finish="tool_calls"),
        "anthropic": Says("Let me look.", calls=_ONE, finish="tool_calls"),
        "ollama": Says("", calls=(("weather", KOELN),), finish="tool_calls"),
        "tgi": Says("", calls=_ONE, finish="tool_calls"),
    },
    "parallel": {
        "openai": Says("", calls=_BOTH, finish="tool_calls"),
        "anthropic": Says("", calls=_BOTH, finish="tool_calls"),
        "ollama": Says("", calls=(("weather", KOELN), ("weather", KOELN)), finish="tool_calls"),
    },
    "thinking": {
        "openai": Says("You said: say: Grüße", openai_server.THOUGHT),
        "anthropic": Says("You said: say: Grüße", anthropic_server.THOUGHT),
        "ollama": Says("Grüße", "Let me think."),
    },
    "stop": {
        "openai": Says("One, two"),
        "anthropic": Says("One, two"),
        "ollama": Says("Grü"),
        "tgi": Says("You said: "),
    },
    "length": {
        "openai": Says("Once upon a", finish="length"),
        "anthropic": Says("Once upon a", finish="length"),
        "ollama": Says("one", finish="length"),
        "tgi": Says("You", finish="length"),
    },
    "refusal": {
        "openai": Says("I", finish="content_filter"),
        "anthropic": Says("I", finish="content_filter"),
    },
    "image": {
        "openai": Says("You said: say: Grüße (an image)"),
        "anthropic": Says("You said: say: Grüße"),
        "ollama": Says("I see 1 image of 70 bytes"),
        "tgi": Says("You said: Grüße"),
    },
    "schema": {
        "openai": Says(json.loads(openai_server.SCHEMED)),
        "anthropic": Says(json.loads(anthropic_server.SCHEMED)),
        "ollama": Says({"name": "Köln", "age": 7}),
        "tgi": Says("You said: Grüße"),
    },
}
for answers_of in ANSWERS.values():
    if "openai" in answers_of:
        answers_of["chatonly"] = answers_of["openai"]


class Houses:
    """The servers; `config` is the gateway's over all of them."""

    def __init__(self, stage: Stage) -> None:
        self.tgi = TgiServer("You said: Grüße")
        self.ollama = OllamaServer()
        self.upstreams: dict[str, Upstream] = {
            "openai": stage.upstream(openai_server.serve),
            "chatonly": stage.upstream(openai_server.serve),
            "anthropic": stage.upstream(anthropic_server.serve),
            "ollama": stage.upstream(self.ollama),
            "tgi": stage.upstream(self.tgi.serve),
        }

    def backends(self, **more: Any) -> list[dict[str, Any]]:
        """One for each house; *more* stands in each."""
        served: dict[str, dict[str, Any]] = {
            "openai": {"models": [{f"openai-{word}": word} for word in SCENARIOS]},
            "chatonly": {
                "models": [{f"chatonly-{word}": word} for word in SCENARIOS],
                "native": ["/v1/chat/completions"],
            },
            "anthropic": {
                "protocol": "anthropic",
                "models": [{f"anthropic-{word}": f"claude-{word}"} for word in SCENARIOS],
                "auth": anthropic_server.AUTH,
            },
            "ollama": {
                "protocol": "ollama",
                "models": [
                    {f"ollama-{word}": _OLLAMA.get(word, "llama3.2")} for word in (*SCENARIOS, "image", "embed")
                ],
            },
            "tgi": {"protocol": "tgi", "models": [f"tgi-{word}" for word in SCENARIOS]},
        }
        made = [backend(self.upstreams[name], name=name, **served[name], **more) for name in served]
        mock = {"protocol": "mock", "models": ["mock-echo"]}
        return [*made, backend("mock://local?text=You%20said:%20Gr%C3%BC%C3%9Fe", name="mock", **mock, **more)]

    def config(self, **more: Any) -> Configuration:
        return configuration(*self.backends(**more))

    def asked(self, house: str, scenario: str, **more: Any) -> Asked:
        """The question that brings *house* to *scenario*."""
        word = scenario if scenario in SCENARIOS else "echo"
        text = "say: Grüße"
        if house == "ollama":
            word = "image" if scenario == "image" else word
            text = {"length": "say: one two three", "stop": "say: GrüSTOPße", "parallel": "twice"}.get(scenario, text)
        self.tgi.arguments = ZURICH if scenario == "tools" else None
        asked = Asked(f"{house}-{word}", text)
        if scenario in ("tools", "parallel"):
            asked = asked._replace(tools=("weather", "now"))
        if scenario == "stop":
            asked = asked._replace(stop={"ollama": "STOP", "tgi": "Grüße"}.get(house, "END"))
        if scenario == "length":
            asked = asked._replace(limit=1)
        asked = asked._replace(image=scenario == "image", schema=scenario == "schema", thinks=scenario == "thinking")
        return asked._replace(**more)

    def last(self, house: str) -> Any:
        """The body of the last request that *house* got."""
        return json.loads(self.upstreams[house].ledger.last.body)
