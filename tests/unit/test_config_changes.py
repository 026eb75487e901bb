"""What differs between two configurations, and what of it can take effect."""

from __future__ import annotations

import msgspec

from gateway.config.changes import SETTLED, changed_keys, keep_settled, settled
from gateway.config.load import load
from gateway.config.schema import Config, Section


def config(**variables: str) -> Config:
    base = {"GATEWAY_UPSTREAMS": "a=http://127.0.0.1:1;b=http://127.0.0.1:2", "GATEWAY_API_KEYS": "some-key-of-a-test"}
    return load([], {**base, **variables}, {})


def test_nothing_differs_from_the_same() -> None:
    assert list(changed_keys(config(), config())) == []


def test_a_key_is_named_with_its_table_and_a_listed_table_by_its_name() -> None:
    old = config()
    new = config(GEN_GATEWAY__SERVER__PRE_STOP="1s", GEN_GATEWAY__BACKENDS__1__TIMEOUTS__IDLE="7s")
    assert list(changed_keys(old, new)) == ["server.pre_stop", "backends.b.timeouts.idle"]


def test_a_table_that_comes_or_goes_is_named() -> None:
    old, new = config(), config(GATEWAY_UPSTREAMS="a=http://127.0.0.1:1;c=http://127.0.0.1:3")
    assert list(changed_keys(old, new)) == ["backends.b", "backends.c"]
    assert list(changed_keys(new, old)) == ["backends.c", "backends.b"]


def test_a_route_is_called_by_its_model() -> None:
    old, new = config(GATEWAY_FALLBACKS="a=b;x=b"), config(GATEWAY_FALLBACKS="a=b;x=a;*=b")
    assert list(changed_keys(old, new)) == ["routes.x.fallbacks", "routes.*"]
    assert list(changed_keys(config(), old)) == ["routes.a", "routes.x"]


def test_no_value_is_shown() -> None:
    keys = changed_keys(config(), config(GATEWAY_API_KEYS="another-key-of-a-test"))
    assert all("another" not in key for key in keys)


def test_what_is_settled_stays_and_is_told() -> None:
    old, new = config(), config(GEN_GATEWAY__SERVER__BACKLOG="7", GEN_GATEWAY__SERVER__PRE_STOP="1s")
    assert settled(list(changed_keys(old, new))) == ["server.backlog"]
    kept = keep_settled(old, new)
    assert kept.server.backlog == old.server.backlog and kept.server.pre_stop == new.server.pre_stop


def test_every_settled_key_is_one_of_the_schema() -> None:
    def names(section: type[Section] | Section) -> set[str]:
        return {field.name for field in msgspec.structs.fields(section)}

    whole = config()
    for key in SETTLED:
        table, _, name = key.partition(".")
        assert table in names(whole)
        assert not name or name in names(getattr(whole, table))
