"""Types, ranges and unknown keys: every fault is found in one run, with its file, its key and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.load import ConfigError, load
from gateway.config.schema import Bytes, Config, Seconds, Section
from gateway.config.shape import bounds, choices, fields, is_map, item_of, scalar_of, section_of, words_of
from tests.unit.configuring import BACKEND, KEYED, faults, loaded, written

WRONG_TYPES = [
    ("server.port", '"80"', 'is "80", expected an integer from 0 to 65535'),
    ("server.port", "80.0", "is 80.0, expected an integer from 0 to 65535"),
    ("server.port", "true", "is true, expected an integer from 0 to 65535"),
    ("server.port", "[80]", "is an array, expected an integer from 0 to 65535"),
    ("server.port", "{ a = 1 }", "is a table, expected an integer from 0 to 65535"),
    ("server.port", "1979-05-27", "is a date or time, expected an integer from 0 to 65535"),
    ("server.host", "1", "is 1, expected text"),
    ("server", '"a"', 'is "a", expected a table'),
    ("server.half_close", '"Abort"', 'is "Abort", expected one of "abort", "serve"'),
    ("auth.enabled", "1", "is 1, expected true or false"),
    ("auth.enabled", '"true"', 'is "true", expected true or false'),
    ("auth.bypass_paths", '"/a"', 'is "/a", expected an array, each element text'),
    ("metrics.enabled", '"no"', 'is "no", expected true or false'),
    ("backends", "{ a = 1 }", "is a table, expected an array, each element a table"),
    ("routing.default_backend", "[]", "is an array, expected text"),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG_TYPES)
def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path, key: str, value: str, said: str) -> None:
    assert faults(tmp_path, f"{key} = {value}\n") == [f"gateway.toml: {key}: {said}"]


@pytest.mark.parametrize(
    ("lines", "key", "said"),
    [
        ("endpoints = 'http://a'", "endpoints", 'is "http://a", expected an array, each element text or a table'),
        ("endpoints = [7]", "endpoints[0]", "is 7, expected text or a table"),
        ("endpoints = [{ weight = 1 }]", "endpoints[0].url", "is missing, expected text"),
        (
            "endpoints = [{ url = 'http://a', weigth = 1 }]",
            "endpoints[0].weigth",
            'is not a key, did you mean "weight"?',
        ),
        ("models = 'all'", "models", 'is "all", expected "auto" or an array, each element text or a table'),
        ("models = [1]", "models[0]", "is 1, expected text or a table"),
        ("models = [{ a = 1 }]", "models[0].a", "is 1, expected text"),
        ("timeouts = '5s'", "timeouts", 'is "5s", expected a table'),
    ],
)
def test_a_value_of_the_wrong_type_in_a_backend_is_refused(tmp_path: Path, lines: str, key: str, said: str) -> None:
    endpoints = "" if lines.startswith("endpoints") else "endpoints = ['http://a']\n"
    text = f"{KEYED}[[backends]]\nname = 'b'\n{endpoints}{lines}\n"
    assert faults(tmp_path, text) == [f"gateway.toml: backends[b].{key}: {said}"]


def _numbers(section: type[Section], path: str = "") -> list[tuple[str, Any]]:
    """The path and kind of every number of the schema."""
    found: list[tuple[str, Any]] = []
    for name, field in fields(section).items():
        key = f"{path}.{name}" if path else name
        inner = section_of(field.kind) or section_of(item_of(field.kind) or str)
        if inner is not None:
            found += _numbers(inner, key)
        elif scalar_of(field.kind) in (int, Seconds, Bytes):
            found.append((key, field.kind))
    return found


NUMBERS = _numbers(Config)


def _text(key: str, value: str) -> str:
    """A configuration that sets *key*, in a backend or in an element of its endpoints where it belongs there."""
    table, _, rest = key.partition(".")
    if key == "backends.endpoints.weight":
        return f"{KEYED}[[backends]]\nname = 'b'\nendpoints = [{{ url = 'http://a', weight = {value} }}]\n"
    if key == "routes.targets.weight":
        targets = f"targets = [{{ backend = 'b', weight = {value} }}, 'c']"
        other = BACKEND.replace('"b"', '"c"')
        return f"{KEYED}{BACKEND}{other}[[routes]]\nmodel = 'm'\n{targets}\n"
    return f"{KEYED}{BACKEND}{rest} = {value}\n" if table == "backends" else f"{key} = {value}\n"


@pytest.mark.parametrize("key", [key for key, _ in NUMBERS])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "true", "'many'", "99999999999999999999999", "[]", "1979-05-27"])
def test_no_number_takes_nonsense(tmp_path: Path, key: str, value: str) -> None:
    [fault] = faults(tmp_path, _text(key, value))
    assert fault.startswith("gateway.toml: ")
    assert f"{key.rpartition('.')[2]}: is " in fault
    assert ", expected " in fault


ZERO_HAS_A_MEANING = {
    "server.port",  # the kernel picks a free one
    "server.pre_stop",
    "server.workers",
    "server.drain_timeout",
    "defaults.timeouts.total",
    "backends.timeouts.total",
    "defaults.pool.max_idle",
    "backends.pool.max_idle",
    "defaults.breaker.max_failures",  # no circuit opens
    "backends.breaker.max_failures",
    "defaults.health.interval",  # nobody is asked
    "backends.health.interval",
    "defaults.load.interval",
    "backends.load.interval",
    "routes.targets.weight",  # none of the calls
    "cors.max_age",
    "server.watch",
    "defaults.heartbeat",
    "backends.heartbeat",
    "overload.memory_limit",
    "overload.max_lag",
}


@pytest.mark.parametrize("key", [key for key, _ in NUMBERS])
def test_zero_is_refused_where_it_would_mean_never(tmp_path: Path, key: str) -> None:
    found = faults(tmp_path, _text(key, "0"))
    assert bool(found) == (key not in ZERO_HAS_A_MEANING), found


@pytest.mark.parametrize(("value", "fits"), [("65535", True), ("65536", False), ("0", True)])
def test_a_port_ends_at_65535(tmp_path: Path, value: str, fits: bool) -> None:
    assert (faults(tmp_path, f"server.port = {value}\n") == []) == fits


def test_every_kind_of_the_schema_is_known() -> None:
    def check(section: type[Section]) -> None:
        for name, field in fields(section).items():
            kind = field.kind
            inner = section_of(kind) or section_of(item_of(kind) or str)
            known = scalar_of(kind) or item_of(kind) or section_of(kind) or is_map(kind) or words_of(kind)
            assert known, name
            assert len([one for one in choices(kind) if one in (str, int, bool, Seconds, Bytes)]) <= 1, name
            if scalar_of(kind) is int:
                assert bounds(kind).low is not None and bounds(kind).high is not None, name
            if inner is not None:
                check(inner)

    check(Config)


def test_the_schemas_defaults_are_of_their_own_kind() -> None:
    def check(value: Section) -> None:
        for field in msgspec.structs.fields(type(value)):
            scalar, inner = scalar_of(field.type), getattr(value, field.name)
            if isinstance(inner, Section):
                check(inner)
            elif scalar is not None:
                assert type(inner) is scalar, field.name

    check(Config())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1\n", 'server.prot: is not a key, did you mean "port"?'),
        ("[sever]\n", 'sever: is not a key, did you mean "server"?'),
        (
            "[[auth.keys]]\nname='k'\nkey='a'\nkey_evn='A'\n",
            'auth.keys[k].key_evn: is not a key, did you mean "key_env"?',
        ),
        ("[defaults]\ntimeout.idle = 1\n", 'defaults.timeout: is not a key, did you mean "timeouts"?'),
        ("[defaults.timeouts]\nidel = 1\n", 'defaults.timeouts.idel: is not a key, did you mean "idle"?'),
        ("[cors]\n'a\\nb' = 1\n", None),
        ("[server]\nxyz = 1\n", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path, text: str, said: str | None) -> None:
    [fault] = faults(tmp_path, text)
    if said is not None:
        assert fault == f"gateway.toml: {said}"
    else:
        assert "is not a key, expected one of " in fault


def test_a_key_with_a_line_end_does_not_break_the_line(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, '[server]\n"a\\nb" = 1\n')
    assert 'server."a\\nb": is not a key' in fault


def test_a_fault_that_many_backends_inherit_is_told_once(tmp_path: Path) -> None:
    two = BACKEND + BACKEND.replace('"b"', '"c"')
    [fault] = faults(tmp_path, f"{KEYED}[defaults]\ntimeouts.idle = -1\n{two}")
    assert fault.startswith("gateway.toml: defaults.timeouts.idle: is -1, expected a duration")


def test_an_unknown_key_of_the_defaults_is_told_once(tmp_path: Path) -> None:
    two = BACKEND + BACKEND.replace('"b"', '"c"')
    found = faults(tmp_path, f'{KEYED}[defaults]\ntimeouts.idel = 1\nname = "d"\n{two}')
    assert [fault.partition(": is")[0] for fault in found] == [
        "gateway.toml: defaults.timeouts.idel",
        "gateway.toml: defaults.name",
    ]


def test_every_fault_of_a_file_is_found_in_one_run(tmp_path: Path) -> None:
    text = f"""
        {KEYED}
        [server]
        port = 70000
        prot = 1
        [logging]
        level = "loud"
        [[backends]]
        name = "b"
        endpoints = ["ftp://a"]
        retry.tries = 0
        auth.type = "bearer"
        [[backends]]
        endpoints = "http://a"
        [routing]
        default_backend = "c"
    """
    assert [fault.partition(": is ")[0].partition(": has ")[0] for fault in faults(tmp_path, text)] == [
        "gateway.toml: server.port",
        "gateway.toml: server.prot",
        "gateway.toml: logging.level",
        "gateway.toml: backends[b].retry.tries",
        "gateway.toml: backends[1].endpoints",
        "gateway.toml: backends[1].name",
        "gateway.toml: backends[b].endpoints[0]",
        "gateway.toml: backends[b].auth",
        "gateway.toml: routing.default_backend",
    ]


def test_faults_carry_source_key_and_message(tmp_path: Path) -> None:
    path = written(tmp_path, "[server]\nport = -1\n")
    with pytest.raises(ConfigError) as caught:
        load([path], {}, {})
    [fault] = caught.value.faults
    assert (fault.source, fault.key) == (path, "server.port")
    assert str(caught.value) == f"{path}: server.port: {fault.message}"


def test_units_are_read_wherever_the_schema_has_them(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[server]\nbody_limit = "1MiB"\nheader_timeout = "250ms"\n[cors]\nmax_age = 1.5\n')
    assert (config.server.body_limit, config.server.header_timeout) == (1 << 20, 0.25)
    assert config.cors.max_age == 1.5


def test_models_are_names_aliases_or_auto(tmp_path: Path) -> None:
    text = KEYED + BACKEND + 'models = ["gpt-*", { "fast" = "llama-3", "slow" = "llama-2" }]\n'
    assert loaded(tmp_path, text).backends[0].models == ("gpt-*", {"fast": "llama-3", "slow": "llama-2"})
    assert loaded(tmp_path, KEYED + BACKEND).backends[0].models == "auto"


@pytest.mark.parametrize(
    "text",
    [
        '[[auth.keys]]\nname = "k"\nkey = ["hunter2"]\n',
        '[auth]\nkeys = "hunter2"\n',
        '[auth]\nkeys = ["hunter2"]\n',
        '[auth]\nkeys = [{ name = "k", sha256 = "hunter2" }]\n',
        '[auth]\nkeys = [{ name = "k", key_env = "hunter2-" }]\n',
        'auth = "hunter2"\n',
        'backends = "hunter2"\n',
        '[defaults]\nauth = "hunter2"\n',
        KEYED + '[[backends]]\nname = "b"\nendpoints = ["http://me:hunter2@a"]\n',
        KEYED + BACKEND + 'auth = { type = "bearer", token = "hunter2", token_env = "A" }\n',
        KEYED + BACKEND + 'auth = { type = "bearer", token = "hunter2\\n" }\n',
        KEYED + BACKEND + 'auth = { type = "bearer", tokn = "hunter2" }\n',
    ],
)
def test_no_fault_repeats_what_may_be_a_secret(tmp_path: Path, text: str) -> None:
    found = faults(tmp_path, text)
    assert found
    assert "hunter2" not in "".join(found)
