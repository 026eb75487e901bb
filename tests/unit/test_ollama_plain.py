"""/api/generate, /api/embed and /api/embeddings, from both ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocols.dialect import Dropped, ErrorObject, Task, Unmappable
from protocols.ollama.generate_client import GenerateClient
from protocols.pieces import Malformed
from tests.unit.ollama_calls import CREATED, CREATED_AT, ID, PNG, backend, client, lines, request, told


def refused(make: Any, path: str, **fields: Any) -> str:
    with pytest.raises(Unmappable) as caught:
        make(path, {"model": "m", **fields})
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value.param


# /api/generate for clients


def test_a_prompt_that_is_templated_is_a_chat() -> None:
    side = client("generate", request("generate-whole"))
    assert side.task is Task.CHAT
    assert side.hub == {
        "model": "llama3.2",
        "stream": False,
        "messages": [
            {"role": "system", "content": "You are terse."},
            {"role": "user", "content": "What color is the sky? Respond using JSON"},
        ],
        "response_format": {"type": "json_object"},
    }
    hub = client("generate", {"model": "m", "prompt": "x", "images": [PNG], "think": False}).hub
    assert [part["type"] for part in hub["messages"][0]["content"]] == ["text", "image_url"]
    assert hub["reasoning_effort"] == "none"


def test_a_raw_prompt_and_one_with_a_suffix_are_completions() -> None:
    side = client("generate", request("generate-raw-whole"))
    assert side.task is Task.COMPLETION
    prompt = "[INST] why is the sky blue? [/INST]"
    assert side.hub == {"model": "mistral", "stream": False, "prompt": prompt, "max_tokens": 14}
    side = client("generate", request("generate-suffix-whole"))
    assert side.task is Task.COMPLETION
    assert (side.hub["suffix"], side.hub["temperature"]) == ("    return result", 0)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({}, "prompt"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": "x", "template": "{{.Prompt}}"}, "template"),
        ({"prompt": "x", "context": [1, 2]}, "context"),
        ({"prompt": "x", "raw": "yes"}, "raw"),
        ({"prompt": "x", "raw": True, "system": "s"}, "system"),
        ({"prompt": "x", "raw": True, "context": [1]}, "context"),
        ({"prompt": "x", "raw": True, "images": [PNG]}, "images"),
        ({"prompt": "x", "raw": True, "think": True}, "think"),
        ({"prompt": "x", "suffix": "y", "format": "json"}, "format"),
        ({"prompt": "x", "suffix": "y", "system": "s"}, "system"),
        ({"prompt": "x", "suffix": 1}, "suffix"),
        ({"prompt": "x", "width": 512}, "width"),
    ],
)
def test_what_a_prompt_cannot_have_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(client, "generate", **fields) == param


def test_what_a_lenient_route_leaves_out_of_a_prompt_is_noted() -> None:
    dropped = Dropped(lenient=True)
    given = {"model": "m", "prompt": "x", "context": [1], "template": "t", "options": {"typical_p": 0.5}}
    side = GenerateClient(given, False, ID, CREATED, dropped)
    assert side.hub["messages"] == [{"role": "user", "content": "x"}]
    assert dropped.fields == ["template", "context", "options.typical_p"]


def test_what_says_nothing_is_no_reason_to_refuse() -> None:
    given = {"prompt": "x", "template": "", "context": [], "system": "", "images": [], "format": "", "raw": False}
    assert client("generate", {"model": "m", **given}).hub["messages"] == [{"role": "user", "content": "x"}]
    assert client("generate", {"model": "m", **given, "raw": True, "think": False}).hub["prompt"] == "x"


def test_a_chat_is_answered_as_a_response() -> None:
    message = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    answer = {"choices": [{"message": message, "finish_reason": "length"}], "usage": usage}
    found = json.loads(client("generate", {"model": "m", "prompt": "x"}).answer(answer))
    expected = {"model": "m", "created_at": CREATED_AT, "response": "a", "thinking": "hm", "done": True}
    assert {key: found[key] for key in expected} == expected
    assert (found["done_reason"], found["prompt_eval_count"], found["eval_count"]) == ("length", 1, 2)


def test_both_tasks_are_streamed_as_responses() -> None:
    side = client("generate", {"model": "m", "prompt": "x"}, stream=True)
    data = side.feed({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    data += side.feed({"choices": [{"delta": {"reasoning_content": "hm"}}]})
    data += side.feed({"choices": [{"delta": {"content": "a\u2028"}, "finish_reason": "stop"}]}) + side.end()
    assert [(line["response"], line.get("thinking"), line["done"]) for line in lines(data)] == [
        ("", "hm", False),
        ("a\u2028", None, False),
        ("", None, True),
    ]
    assert len(data.decode().splitlines()) == 3
    side = client("generate", {"model": "m", "prompt": "x", "raw": True}, stream=True)
    data = side.feed({"choices": [{"text": "b", "finish_reason": None}]})
    data += side.feed({"choices": [{"text": "", "finish_reason": "length"}]}) + side.end()
    assert [(line["response"], line["done"]) for line in lines(data)] == [("b", False), ("", True)]
    assert lines(data)[-1]["done_reason"] == "length"
    assert lines(side.fail(ErrorObject(502, "gone"))) == [{"error": "gone"}]


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (True, {}),
        (False, {}),
        (True, {"choices": [{"text": 1}]}),
        (False, {"choices": [{"message": {"content": 1}}]}),
        (False, {"choices": [{"message": 1}]}),
    ],
)
def test_a_wrong_type_in_a_completion_is_malformed(raw: bool, answer: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        client("generate", {"model": "m", "prompt": "x", "raw": raw}).answer(answer)


# /api/generate of a server


def body_of(path: str, lenient: bool = False, **hub: Any) -> dict[str, Any]:
    body = json.loads(backend(path, {"model": "m", **hub}, lenient=lenient).ask("n").body)
    assert isinstance(body, dict)
    return body


def test_a_completion_is_asked_for_with_the_models_template() -> None:
    assert body_of("generate", prompt=["x"], suffix="y", max_tokens=5, stop="z", user="u") == {
        "model": "n",
        "prompt": "x",
        "suffix": "y",
        "stream": False,
        "options": {"num_predict": 5, "stop": ["z"]},
    }
    assert body_of("generate", prompt="x", n=1, best_of=1, echo=False, suffix=None) == {
        "model": "n",
        "prompt": "x",
        "stream": False,
    }
    assert backend("generate", {"model": "m", "prompt": "x"}).ask("n").path == b"/api/generate"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["x", "y"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1]]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "n": 2}, "n"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "logprobs": 0}, "logprobs"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "suffix": 3}, "suffix"),
        ({"prompt": "x", "response_format": {}}, "response_format"),
    ],
)
def test_what_a_completion_cannot_have_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(backend, "generate", **fields) == param


def test_a_response_is_a_text_completion() -> None:
    body = b'{"response":"a","done":true,"done_reason":"length","context":[1],"eval_count":2}'
    assert backend("generate", {"model": "m", "prompt": "x"}).answer(body) == {
        "id": f"cmpl-{ID}",
        "object": "text_completion",
        "created": CREATED,
        "model": "m",
        "choices": [{"index": 0, "text": "a", "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2},
    }


def test_a_streamed_response_is_chunks_of_text_without_thinking() -> None:
    payload = b'{"response":"","thinking":"hm","done":false}\n{"response":"a","done":false}\n'
    payload += b'{"response":"","done":true,"done_reason":"stop","eval_count":2}\n'
    chunks, ending = told(backend("generate", {"model": "m", "prompt": "x"}, stream=True), payload)
    assert ending == ""
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert [(choice["text"], choice["finish_reason"]) for choice in choices] == [("a", None), ("", "stop")]
    assert chunks[-1]["usage"]["completion_tokens"] == 2
    for bad in (b'{"done":true}\n', payload + b"{}", payload[:-40]):
        assert told(backend("generate", {"model": "m", "prompt": "x"}, stream=True), bad)[1].startswith("Malformed")


# embeddings


def test_texts_are_embedded_for_clients() -> None:
    given = request("embed-whole") | {"dimensions": 3, "truncate": True, "keep_alive": "1m", "options": {"num_ctx": 9}}
    side = client("embed", given)
    assert side.task is Task.EMBEDDINGS
    assert side.hub == {
        "model": "all-minilm",
        "input": given["input"],
        "encoding_format": "float",
        "dimensions": 3,
    }
    data = [
        {"index": 1, "embedding": [0.5]},
        {"index": 0, "embedding": [2.0]},
    ]
    found = json.loads(side.answer({"data": data, "usage": {"prompt_tokens": 8, "total_tokens": 8}}))
    assert found == {
        "model": "all-minilm",
        "embeddings": [[2.0], [0.5]],
        "total_duration": 0,
        "load_duration": 0,
        "prompt_eval_count": 8,
    }


def test_the_older_path_embeds_one_prompt() -> None:
    side = client("embeddings", request("embeddings-whole") | {"keep_alive": 0})
    assert side.hub["input"] == "Here is an article about llamas..."
    assert json.loads(side.answer({"data": [{"embedding": [1.5, 2]}]})) == {"embedding": [1.5, 2.0]}
    with pytest.raises(Malformed):
        side.answer({"data": []})


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("embed", {"input": []}, "input"),
        ("embed", {"input": ""}, "input"),
        ("embed", {}, "input"),
        ("embed", {"input": [1]}, "input[0]"),
        ("embed", {"input": 1}, "input"),
        ("embed", {"input": "x", "dimensions": "3"}, "dimensions"),
        ("embed", {"input": "x", "stream": True}, "stream"),
        ("embed", {"input": "x", "options": 1}, "options"),
        ("embeddings", {"prompt": ""}, "prompt"),
        ("embeddings", {"prompt": ["x"]}, "prompt"),
        ("embeddings", {"prompt": "x", "input": "y"}, "input"),
    ],
)
def test_what_cannot_be_embedded_is_named(path: str, fields: dict[str, Any], param: str) -> None:
    assert refused(client, path, **fields) == param


@pytest.mark.parametrize(
    "data",
    [None, 1, [1], [{}], [{"embedding": 1}], [{"embedding": ["x"]}], [{"embedding": "AAA"}], [{"embedding": "é"}]],
)
def test_a_wrong_type_of_an_embedding_is_malformed(data: Any) -> None:
    with pytest.raises(Malformed):
        client("embed", {"model": "m", "input": "x"}).answer({"data": data})


def test_texts_are_embedded_by_a_server() -> None:
    assert body_of("embed", input="x", dimensions=2, user="u", encoding_format="float") == {
        "model": "n",
        "input": ["x"],
        "dimensions": 2,
    }
    side = backend("embed", {"model": "m", "input": ["x", "y"]})
    assert side.ask("n").path == b"/api/embed"
    assert side.answer(b'{"embeddings":[[1,0.5],[2,3]],"prompt_eval_count":8}') == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [2.0, 3.0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }


def test_vectors_are_numbers_whatever_the_client_asked_for() -> None:
    """Its own side writes base64: twice would be none."""
    side = backend("embed", {"model": "m", "input": "x", "encoding_format": "base64"})
    answer = side.answer(b'{"embeddings":[[1,0.5,-2]]}')
    assert answer["data"][0]["embedding"] == [1.0, 0.5, -2.0]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2]}, "input"),
        ({"input": [[1]]}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({}, "input"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ],
)
def test_what_a_server_cannot_embed_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(backend, "embed", **fields) == param


@pytest.mark.parametrize(
    "body", [b"", b"x", b"{}", b'{"embeddings":[]}', b'{"embeddings":[["x"]]}', b'{"embeddings":[[1],[2]]}']
)
def test_an_answer_without_the_embeddings_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        backend("embed", {"model": "m", "input": "x"}).answer(body)


def test_embeddings_are_no_stream() -> None:
    with pytest.raises(Malformed):
        client("embed", {"model": "m", "input": "x"}).feed({})
    with pytest.raises(Malformed):
        backend("embed", {"model": "m", "input": "x"}).feed(b"{}")
