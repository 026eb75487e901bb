"""The unmodified Ollama client through the gateway to llama.cpp's own server, which is asked to chat as OpenAI's."""

from __future__ import annotations

from typing import Any

import ollama
import pytest

from tests.real.asked import HELLO, LONG_FORM, TOOL, Person, Weather
from tests.real.llama_server import SLOT_CONTEXT, LlamaServer
from tests.real.tiny_model import WIDTH
from tests.wire.process import Gateway, wait_until

BRIEF: Any = {"seed": 7, "num_predict": 12}
#: Of calls that are bound to a grammar: it ends them.
AMPLE: Any = {"seed": 7, "num_predict": 4000}


def test_a_chat_is_answered_whole_and_streamed(native: ollama.Client) -> None:
    whole = native.chat("tiny", HELLO, options=BRIEF)
    assert (whole.message.role, whole.done, whole.model) == ("assistant", True, "tiny")
    assert whole.message.content
    *parts, last = native.chat("tiny", HELLO, stream=True, options=BRIEF)
    assert "".join(part.message.content or "" for part in parts)
    assert not any(part.done for part in parts)
    for end in (whole, last):
        assert end.done and end.done_reason in ("length", "stop")
        assert 0 < (end.eval_count or 0) <= 12
        assert (end.prompt_eval_count or 0) > 0


def test_a_prompt_is_answered_whole_and_streamed(native: ollama.Client) -> None:
    whole = native.generate("tiny", "Hello", system="Be brief.", options=BRIEF)
    assert whole.response and whole.done
    *parts, last = native.generate("tiny", "Hello", stream=True, options=BRIEF)
    assert "".join(part.response for part in parts)
    assert last.done and 0 < (last.eval_count or 0) <= 12
    raw = native.generate("tiny", "Hello", raw=True, options=BRIEF)
    assert (raw.prompt_eval_count or 0) < (whole.prompt_eval_count or 0)  # no template


def test_a_raw_prompt_without_a_limit_is_not_ended_after_a_completions_sixteen_tokens(native: ollama.Client) -> None:
    stream = native.generate("tiny", "Hello", raw=True, stream=True, options={"seed": 7, "temperature": 0})
    parts = [part for part, _ in zip(stream, range(40), strict=False)]
    stream.close()
    assert len(parts) == 40 or (parts[-1].eval_count or 0) > 16


def test_texts_are_embedded(native: ollama.Client) -> None:
    two = native.embed("tiny", ["the dog", "the cat"])
    assert [len(vector) for vector in two.embeddings] == [WIDTH, WIDTH]
    assert (two.prompt_eval_count or 0) > 0
    assert list(native.embeddings("tiny", "the dog").embedding) == pytest.approx(list(two.embeddings[0]), abs=1e-3)


def test_the_models_of_the_server_are_listed(native: ollama.Client) -> None:
    assert [model.model for model in native.list().models] == ["tiny"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_tools_are_called_and_their_results_heard(native: ollama.Client, stream: bool) -> None:
    if stream:
        *_, part, last = native.chat("tiny", HELLO, tools=[TOOL], options=AMPLE, stream=True)
        message = part.message
    else:
        last = native.chat("tiny", HELLO, tools=[TOOL], options=AMPLE)
        message = last.message
    assert last.done_reason == "stop"  # Ollama has no word of its own for it
    calls = message.tool_calls or []
    assert {call.function.name for call in calls} == {"weather"}
    for call in calls:
        Weather.model_validate(call.function.arguments)
    results = [{"role": "tool", "tool_name": "weather", "content": "Rain."} for _ in calls]
    heard = native.chat("tiny", [*HELLO, message, *results], tools=[TOOL], options=BRIEF)
    assert not heard.message.tool_calls
    assert heard.message.content is not None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_schema_binds_the_answer(native: ollama.Client, stream: bool) -> None:
    form = Person.model_json_schema()
    if stream:
        parts = list(native.chat("tiny", HELLO, format=form, options=AMPLE, stream=True))
        Person.model_validate_json("".join(part.message.content or "" for part in parts))
    else:
        Person.model_validate_json(native.chat("tiny", HELLO, format=form, options=AMPLE).message.content or "")
        Person.model_validate_json(native.generate("tiny", "Hello", format=form, options=AMPLE).response)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_errors_are_told_as_ollama_tells_them(native: ollama.Client, stream: bool) -> None:
    def ask(model: str, messages: Any) -> None:
        answer = native.chat(model, messages, stream=stream)
        list(answer)

    with pytest.raises(ollama.ResponseError, match="exceeds the available context size") as refused:
        ask("tiny", [{"role": "user", "content": "x" * (SLOT_CONTEXT + 1)}])
    assert refused.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="huge") as unknown:
        ask("huge", HELLO)
    assert unknown.value.status_code == 404


def test_a_wrong_key_is_refused(address: str) -> None:
    with (
        ollama.Client(address, headers={"Authorization": "Bearer wrong"}, trust_env=False) as stranger,
        pytest.raises(ollama.ResponseError) as wrong,
    ):
        stranger.chat("tiny", HELLO)
    assert wrong.value.status_code == 401


def test_the_server_stops_when_the_client_leaves_a_stream(
    native: ollama.Client, server: LlamaServer, gateway: Gateway
) -> None:
    before = len(gateway.calls(ending="CD"))
    stream = native.chat("tiny", HELLO, format=LONG_FORM, stream=True)
    next(stream)
    assert server.busy_slots() == 1
    stream.close()
    wait_until(lambda: server.busy_slots() == 0, "the server goes on generating")
    assert gateway.wait_call(before + 1, ending="CD")["path"] == "/api/chat"
