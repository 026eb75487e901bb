"""What the samples refuse, as a real server would, and how they cut text."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from protocols.openai.samples.answer import SAMPLES, sample
from protocols.openai.samples.media import SIDE_LIMIT
from protocols.openai.samples.shapes import Asked, Refused, shorten, words
from tests.unit.sampling import HELLO, ask, connect

CHAT = "/v1/chat/completions"
IMAGES = "/v1/images/generations"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {}, "messages"),
        (CHAT, {"messages": "Hi"}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": None}, "messages"),
        (CHAT, {"messages": [{"content": "Hi"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (CHAT, {"messages": HELLO, "n": 0}, "n"),
        (CHAT, {"messages": HELLO, "n": 129}, "n"),
        (CHAT, {"messages": HELLO, "n": "2"}, "n"),
        (CHAT, {"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        (CHAT, {"messages": HELLO, "temperature": 2.1}, "temperature"),
        (CHAT, {"messages": HELLO, "top_p": -1}, "top_p"),
        ("/v1/completions", {}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": ["a", 1]}, "prompt"),
        ("/v1/completions", {"prompt": ["a", [1]]}, "prompt"),
        ("/v1/completions", {"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ("/v1/embeddings", {"input": ["a"] * 65, "dimensions": 4096}, "input"),
        ("/v1/moderations", {"input": ["a"] * 2049}, "input"),
        ("/v1/responses", {}, "input"),
        ("/v1/responses", {"input": 3}, "input"),
        ("/v1/embeddings", {"input": ""}, "input"),
        ("/v1/embeddings", {"input": ["a", ""]}, "input"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions"),
        ("/v1/moderations", {"input": ["a", {"type": "text"}]}, "input"),
        ("/v1/moderations", {"input": [{"type": "sound"}]}, "input[0].type"),
        ("/v1/rerank", {"query": "a"}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        (IMAGES, {}, "prompt"),
        (IMAGES, {"prompt": ""}, "prompt"),
        (IMAGES, {"prompt": "a", "n": 11}, "n"),
        (IMAGES, {"prompt": "a", "size": "big"}, "size"),
        (IMAGES, {"prompt": "a", "size": "0x5"}, "size"),
        (IMAGES, {"prompt": "a", "size": "-5x5"}, "size"),
        (IMAGES, {"prompt": "a", "size": f"{SIDE_LIMIT + 1}x1"}, "size"),
        (IMAGES, {"prompt": "a", "size": "9999999x1"}, "size"),
        (IMAGES, {"prompt": "a", "stream": True}, "stream"),
        (IMAGES, {"prompt": "a", "output_format": "webp"}, "output_format"),
        ("/v1/images/edits", {"n": 1}, "prompt"),
        ("/v1/images/edits", b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n--b--', "prompt"),
        ("/v1/images/variations", b'--b\r\ncontent-disposition: x; name="n"\r\n\r\n1\r\n--b--', "image"),
        ("/v1/images/variations", b"no form", None),
        ("/v1/audio/speech", {"input": "", "voice": "a"}, "input"),
        ("/v1/audio/speech", {"input": "a" * 4097, "voice": "a"}, "input"),
        ("/v1/audio/speech", {"input": "a"}, "voice"),
        ("/v1/audio/speech", {"input": "a", "voice": "a", "speed": 9}, "speed"),
        ("/v1/audio/transcriptions", b'--b\r\nContent-Disposition: x; name="a"\r\n\r\n1\r\n--b--', "file"),
    ],
)
def test_what_a_real_server_refuses_is_refused_by_the_name_of_the_field(
    path: str, body: dict[str, Any] | bytes, param: str | None
) -> None:
    with pytest.raises(Refused) as refused:
        ask(path, body)
    assert refused.value.param == param
    assert refused.value.message
    assert "`$" not in refused.value.message


def test_the_sdk_raises_a_bad_request_for_a_refusal() -> None:
    with connect(strict=True) as client, pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="mock", messages=HELLO, n=500)
    assert refused.value.param == "n"


def test_a_path_that_is_not_inference_has_no_sample() -> None:
    asked = Asked(path="/v1/files", model="", stream=False, fields={}, body=b"{}", id="1", created=1)
    assert sample(asked) is None
    assert len(SAMPLES) == 12


@pytest.mark.parametrize("text", ["", "one", " one", "one two\n\nthree ", "   ", "ä\u00a0ö"])
def test_the_words_of_a_text_add_up_to_it(text: str) -> None:
    assert "".join(words(text)) == text


def test_a_text_as_long_as_its_limit_is_not_cut() -> None:
    assert shorten(["a", "b"], 2) == (["a", "b"], False)
    assert shorten(["a", "b"], 1) == (["a"], True)
    assert shorten(["a", "b"], None) == (["a", "b"], False)
