"""The samples of embeddings, moderations, rerank, images and sound, judged by the OpenAI SDK and by hand."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import wave
import zlib
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from protocols.openai.samples.media import SIDE_LIMIT
from protocols.openai.samples.shapes import Whole
from tests.unit.sampling import ask, connect


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with connect(strict=True) as client:
        yield client


@pytest.fixture
def lenient() -> Iterator[openai.OpenAI]:
    """For the two answers of OpenAI's own server that the SDK's strict mode refuses (see their tests)."""
    with connect(strict=False) as client:
        yield client


# numbers


@pytest.mark.parametrize(
    ("given", "count", "tokens"),
    [("Hi you", 1, 2), (["a", "b c"], 2, 3), ([5, 6, 7], 1, 3), ([[5], [6, 7]], 2, 3)],
)
def test_embeddings_take_all_four_shapes_of_an_input(
    client: openai.OpenAI, given: Any, count: int, tokens: int
) -> None:
    answer = client.embeddings.create(model="mock", input=given, encoding_format="float")
    assert [row.index for row in answer.data] == list(range(count))
    assert answer.usage.total_tokens == tokens
    for row in answer.data:
        assert math.isclose(math.hypot(*row.embedding), 1, rel_tol=1e-6)


def test_equal_inputs_have_equal_vectors_and_others_differ(lenient: openai.OpenAI) -> None:
    # lenient: the SDK asks for base64 by itself and decodes it after it has validated floats.
    rows = lenient.embeddings.create(model="mock", input=["a", "b", "a"], dimensions=5).data
    assert rows[0].embedding == rows[2].embedding != rows[1].embedding
    assert len(rows[0].embedding) == 5


def test_base64_vectors_are_the_same_numbers_as_little_endian_float32() -> None:
    floats = ask("/v1/embeddings", {"input": "a"})
    packed = ask("/v1/embeddings", {"input": "a", "encoding_format": "base64"})
    assert isinstance(floats, Whole)
    assert isinstance(packed, Whole)
    numbers = json.loads(floats.body)["data"][0]["embedding"]
    raw = base64.b64decode(json.loads(packed.body)["data"][0]["embedding"], validate=True)
    assert list(struct.unpack(f"<{len(numbers)}f", raw)) == numbers


@pytest.mark.parametrize(
    ("given", "results", "kinds"),
    [
        ("fine", 1, ["text"]),
        (["fine", "too"], 2, ["text"]),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}}], 1, None),
    ],
)
def test_a_moderation_judges_each_text_and_flags_nothing(
    client: openai.OpenAI, given: Any, results: int, kinds: list[str] | None
) -> None:
    answer = client.moderations.create(input=given)
    assert [result.flagged for result in answer.results] == [False] * results
    assert answer.results[0].category_applied_input_types.violence == (kinds or ["image", "text"])
    assert answer.results[0].category_applied_input_types.hate == ["text"]


def test_reranked_documents_come_best_first_and_no_more_than_asked_for() -> None:
    documents = ["a dog", "a red fox", {"text": "the quick red fox"}]
    body = {"model": "m", "query": "quick red fox", "documents": documents}
    answer = ask("/v1/rerank", body)
    assert isinstance(answer, Whole)
    rows = json.loads(answer.body)["results"]
    assert [row["index"] for row in rows] == [2, 1, 0]
    assert rows[0] == {"index": 2, "relevance_score": 1.0}
    answer = ask("/v1/rerank", body | {"top_n": 1, "return_documents": True})
    assert isinstance(answer, Whole)
    assert [row["document"]["text"] for row in json.loads(answer.body)["results"]] == ["the quick red fox"]


# images


def parse_png(png: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and the rows of *png*, every length, checksum and filter byte checked."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", png, at + 8 + length)
        assert checksum == zlib.crc32(kind + content)
        chunks.append((kind, content))
        at += 12 + length
    assert at == len(png)
    assert [kind for kind, _ in chunks] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [1, 3, 0, 0, 0]
    assert len(chunks[1][1]) == 6
    raw = zlib.decompress(chunks[2][1])
    line = 1 + (width + 7) // 8
    assert len(raw) == line * height
    rows = [raw[start : start + line] for start in range(0, len(raw), line)]
    assert {row[0] for row in rows} == {0}
    return width, height, [row[1:] for row in rows]


@pytest.mark.parametrize("size", ["256x256", "1792x1024", "33x7", "1x1", f"{SIDE_LIMIT}x1", "auto"])
def test_a_generated_image_is_a_real_png_of_the_size_asked_for(client: openai.OpenAI, size: Any) -> None:
    answer = client.images.generate(prompt="a cat", size=size, response_format="b64_json")
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    width, height, _ = parse_png(base64.b64decode(answer.data[0].b64_json, validate=True))
    assert f"{width}x{height}" == ("1024x1024" if size == "auto" else size)


def test_a_picture_is_chequered() -> None:
    answer = ask("/v1/images/generations", {"prompt": "a", "size": "64x64", "response_format": "b64_json"})
    assert isinstance(answer, Whole)
    _, _, rows = parse_png(base64.b64decode(json.loads(answer.body)["data"][0]["b64_json"]))
    assert rows[0] == rows[31] == b"\x00\x00\x00\x00\xff\xff\xff\xff"
    assert rows[32] == rows[63] == b"\xff\xff\xff\xff\x00\x00\x00\x00"


def test_several_images_differ_and_come_as_addresses_unless_base64_is_asked_for(
    client: openai.OpenAI,
) -> None:
    answer = client.images.generate(prompt="a cat", n=3)
    assert answer.data is not None
    urls = [image.url or "" for image in answer.data]
    assert len(set(urls)) == 3
    for url in urls:
        parse_png(base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True))


def test_a_gpt_image_model_always_answers_in_base64(client: openai.OpenAI) -> None:
    answer = client.images.generate(model="gpt-image-1", prompt="a cat")
    assert answer.data is not None
    assert answer.data[0].b64_json


def test_edits_and_variations_are_read_from_a_form(client: openai.OpenAI) -> None:
    edited = client.images.edit(model="m", image=[b"\x89PNG\r\n--x", b"\x89PNG2"], prompt="blue", n=2, size="256x256")
    assert edited.data is not None
    assert len(edited.data) == 2
    with pytest.deprecated_call():
        varied = client.images.create_variation(image=b"\x89PNG", n=2, response_format="b64_json")
    assert varied.data is not None
    assert [bool(image.b64_json) for image in varied.data] == [True, True]


# sound


def test_speech_is_a_valid_wav_and_pcm_its_bare_samples(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="m", input="Hi", voice="alloy")
    assert answer.response.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 24_000)
        samples = sound.readframes(sound.getnframes())
        assert sound.getnframes() == 6000
    bare = client.audio.speech.create(model="m", input="Hi", voice="alloy", response_format="pcm")
    assert bare.content == samples
    assert bare.response.headers["content-type"] == "audio/pcm"


def test_transcriptions_and_translations_answer_as_json_or_as_plain_text(client: openai.OpenAI) -> None:
    said = "This is the mock backend: it was sent 4 bytes of sound and heard none."
    assert client.audio.transcriptions.create(model="m", file=b"RIFF").text == said
    with pytest.deprecated_call():
        assert client.audio.translations.create(model="m", file=b"RIFF").text == said
    plain: Any = client.audio.transcriptions.create(model="m", file=b"RIFF", response_format="text")
    assert plain == said + "\n"
