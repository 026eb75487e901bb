"""Keys: who is let in, who is not, and what each may use."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import keys as module
from gateway.admission.keys import Keyring, Principal
from gateway.config.schema import LONGEST_KEY, Key
from gateway.config.secrets import digest
from tests.unit.configuring import STEADY


def _key(name: str, secret: str, models: Iterable[str] = ("*",), passthrough: bool = False) -> Key:
    return Key(name=name, sha256=digest(secret), allowed_models=tuple(models), passthrough=passthrough)


def _principal(*models: str) -> Principal:
    found = Keyring([_key("k", "secret", models)]).identify(b"secret")
    assert found is not None
    return found


RING = Keyring([_key("a", "key-a"), _key("b", "schlüssel", passthrough=True), _key("long", "x" * LONGEST_KEY)])


@pytest.mark.parametrize(
    ("presented", "name"), [(b"key-a", "a"), ("schlüssel".encode(), "b"), (b"x" * LONGEST_KEY, "long")]
)
def test_a_key_is_known_by_its_bytes(presented: bytes, name: str) -> None:
    found = RING.identify(presented)
    assert found is not None
    assert (found.name, found.passthrough) == (name, name == "b")


@pytest.mark.parametrize(
    "presented",
    [
        b"",
        b"key-",
        b"key-a ",
        b"Key-a",
        b"key-a\x00",
        digest("key-a").encode(),
        hashlib.sha256(b"key-a").digest(),
        b"x" * (LONGEST_KEY + 1),
        b"\xff" * 64,
    ],
)
def test_anything_else_is_nobody(presented: bytes) -> None:
    assert RING.identify(presented) is None


def test_an_empty_ring_knows_nobody() -> None:
    assert Keyring([]).identify(b"") is None
    assert Keyring([]).identify(b"dev-key") is None


@STEADY
@given(st.binary(max_size=300))
def test_no_bytes_raise_or_are_let_in(presented: bytes) -> None:
    assert RING.identify(presented) is None or presented == b"key-a"


@pytest.mark.plain
@pytest.mark.parametrize("presented", [b"key-a", b"unknown", b""])
def test_every_key_costs_one_digest_and_one_comparison(monkeypatch: pytest.MonkeyPatch, presented: bytes) -> None:
    digests, comparisons = [], []

    def hashed(data: bytes) -> object:
        digests.append(data)
        return hashlib.sha256(data)

    def compared(one: bytes, other: bytes) -> bool:
        comparisons.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    ring = Keyring([_key("a", "key-a")])
    monkeypatch.setattr(module, "hashlib", type("Hashes", (), {"sha256": staticmethod(hashed)}))
    monkeypatch.setattr(module, "hmac", type("Macs", (), {"compare_digest": staticmethod(compared)}))
    ring.identify(presented)
    assert digests == [presented]
    assert comparisons == [(32, 32)]


@pytest.mark.plain
def test_a_key_that_is_too_long_is_refused_before_it_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "hashlib", None)
    assert RING.identify(b"x" * (LONGEST_KEY + 1)) is None


@pytest.mark.parametrize("sha256", ["", "5e", "not hex"])
def test_a_key_that_was_not_loaded_is_a_mistake_of_ours(sha256: str) -> None:
    with pytest.raises(ValueError):
        Keyring([Key(name="k", sha256=sha256)])


@pytest.mark.parametrize(
    ("allowed", "model", "may"),
    [
        (("*",), "anything/at:all", True),
        (("gpt-4o", "*"), "llama", True),
        (("gpt-4o",), "gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("gpt-4o",), "GPT-4O", False),
        (("gpt-*",), "gpt-4o", True),
        (("gpt-*",), "gpt-", True),
        (("gpt-*",), "my-gpt-4o", False),
        (("gpt-*",), "gpt-4o\nllama", True),
        (("gpt-?",), "gpt-4", True),
        (("gpt-?",), "gpt-4o", False),
        (("llama-[23]",), "llama-3", True),
        (("llama-[23]",), "llama-4", False),
        (("a.b",), "axb", False),
        (("a.*",), "axb", False),
        (("a+b*",), "aab", False),
        (("a*", "b*", "c"), "b1", True),
        (("a*", "b*", "c"), "c", True),
        (("a*", "b*", "c"), "c1", False),
        ((), "a", False),
        ((), "", False),
    ],
)
def test_a_model_is_allowed_by_name_or_wildcard(allowed: tuple[str, ...], model: str, may: bool) -> None:
    principal = _principal(*allowed)
    assert principal.may_use(model) is may
    assert principal.may_use(model) is may  # the remembered answer is the same


def test_what_is_remembered_is_bounded_in_number_and_length() -> None:
    principal = _principal("gpt-*")
    for count in range(1000):
        assert principal.may_use(f"gpt-{count}")
        assert not principal.may_use(f"llama-{count}")
    assert principal.may_use("gpt-" + "x" * 10_000)
    assert len(principal.judged) <= module._MEMO_SIZE
    assert max(map(len, principal.judged)) <= module._MEMO_LENGTH


def test_no_repr_shows_a_key_or_its_digest() -> None:
    shown = f"{RING!r} {RING.identify(b'key-a')!r}"
    assert shown == "<Keyring of 3> <Principal a>"
