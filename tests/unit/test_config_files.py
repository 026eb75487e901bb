"""Files and folders: what is read, how it merges, and how what cannot be read is told."""

from __future__ import annotations

import os
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import files
from gateway.config.faults import Faults
from gateway.config.load import ConfigError, load
from gateway.config.tree import Array, Leaf, Node, Table, grow, merge, overlay
from tests.unit.configuring import BACKEND, KEYED, STEADY, faults, written


def _folder_faults(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load([str(folder)], {}, {})
    return [str(fault).replace(f"{folder}/", "") for fault in caught.value.faults]


def test_a_folders_files_merge_in_name_order(tmp_path: Path) -> None:
    written(tmp_path, BACKEND.replace('"b"', '"second"'), "20.toml")
    written(tmp_path, BACKEND.replace('"b"', '"first"') + "[server]\nport = 1\n", "10.toml")
    written(tmp_path, KEYED + "[server]\nbacklog = 5\n", "30.toml")
    written(tmp_path, "not toml", "notes.txt")
    written(tmp_path, "not toml", ".#10.toml")
    config = load([str(tmp_path)], {}, {})
    assert [backend.name for backend in config.backends] == ["first", "second"]
    assert (config.server.port, config.server.backlog) == (1, 5)


def test_several_paths_merge_in_the_order_given(tmp_path: Path) -> None:
    first = written(tmp_path, BACKEND.replace('"b"', '"one"'), "z.toml")
    second = written(tmp_path, BACKEND.replace('"b"', '"two"') + KEYED, "a.toml")
    config = load([first, second], {}, {})
    assert [backend.name for backend in config.backends] == ["one", "two"]


def test_the_same_key_in_two_files_is_a_fault(tmp_path: Path) -> None:
    written(tmp_path, "[server]\nport = 1\n[logging]\noutput = []\n", "a.toml")
    written(tmp_path, '[server]\nport = 1\n[logging]\noutput = ["stderr"]\n', "b.toml")
    assert _folder_faults(tmp_path) == [
        f"b.toml: server.port: is set in {tmp_path}/a.toml too, expected it in one file only".replace(
            f"{tmp_path}/", ""
        ),
        "b.toml: logging.output: is set in a.toml too, expected it in one file only",
    ]


def test_a_table_in_one_file_and_a_value_in_another_is_a_fault(tmp_path: Path) -> None:
    written(tmp_path, "[server]\nport = 1\n", "a.toml")
    written(tmp_path, "server = 1\n", "b.toml")
    assert "b.toml: server: is set in a.toml too, expected it in one file only" in _folder_faults(tmp_path)


def test_the_same_name_in_two_files_is_a_fault_that_names_both(tmp_path: Path) -> None:
    written(tmp_path, BACKEND + KEYED, "a.toml")
    written(tmp_path, BACKEND + KEYED.replace("a-key", "another"), "b.toml")
    assert _folder_faults(tmp_path) == [
        'b.toml: auth.keys[k].name: is "k", which a.toml uses too, expected each name once',
        'b.toml: backends[b].name: is "b", which a.toml uses too, expected each name once',
    ]


def test_a_syntax_error_names_file_line_and_column(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, "[server]\nport = = 1\n")
    assert fault.startswith("gateway.toml: line 2, column 8: ")
    assert fault.endswith("expected TOML")


def test_a_file_that_ends_too_early_is_told_so(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, '[server]\nhost = """a')
    assert fault.startswith("gateway.toml: end of document: ")


def test_a_file_that_is_not_utf8_names_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"# caf\xe9\n")
    assert _folder_faults(tmp_path) == ["a.toml: byte 5: is not UTF-8, expected TOML"]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[server]\nport = 1\n")
    assert load([str(tmp_path)], {}, {}).server.port == 1


def test_a_missing_path_and_an_empty_folder_are_faults(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError) as caught:
        load([str(tmp_path / "none.toml"), str(empty)], {}, {})
    [first, second] = map(str, caught.value.faults)
    assert first.startswith(f"{tmp_path}/none.toml: cannot be read (No such file or directory)")
    assert second.startswith(f"{empty}: has no *.toml")


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with open(writer, "wb") as end:
        end.write(b"[server]\n")
        end.flush()
        later = threading.Timer(0.05, lambda: (end.write(b"port = 1\n"), end.close()))
        later.start()
        assert load([f"/dev/fd/{reader}"], {}, {}).server.port == 1
        later.join()
    os.close(reader)


def test_what_never_ends_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_TIME", 0.05)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(ConfigError) as caught:
        load([str(tmp_path / "pipe"), str(tmp_path / "zero")], {}, {})
    [first, second] = map(str, caught.value.faults)
    assert first.startswith(f"{tmp_path}/pipe: cannot be read (it did not end within 0 s)")
    assert second.startswith(f"{tmp_path}/zero: cannot be read (it is larger than 64 MiB)")


def test_a_folder_that_is_named_like_a_file_is_a_fault_and_takes_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "a.toml").mkdir()
    before = os.listdir("/proc/self/fd")
    assert _folder_faults(tmp_path) == [
        "a.toml: cannot be read (Is a directory), expected a TOML file or a folder of them"
    ]
    assert os.listdir("/proc/self/fd") == before


def test_every_file_of_a_folder_is_judged_in_one_run(tmp_path: Path) -> None:
    written(tmp_path, "[server\n", "a.toml")
    written(tmp_path, "[server]\nport = -1\n", "b.toml")
    written(tmp_path, BACKEND.replace("http:", "ftp:"), "c.toml")
    found = _folder_faults(tmp_path)
    assert [line.partition(":")[0] for line in found] == ["a.toml", "b.toml", "c.toml"]


def test_a_bomb_of_nested_arrays_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    [fault, *_] = faults(tmp_path, "a = " + "[" * 100_000)
    assert fault.startswith("gateway.toml: ")


scalars = st.integers() | st.booleans() | st.text(max_size=5)
tables = st.recursive(
    scalars | st.lists(scalars, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
).filter(lambda raw: isinstance(raw, dict))


def _table(raw: Any, source: str) -> Table:
    node = grow(raw, source)
    assert isinstance(node, Table)
    return node


def _plain(node: Node) -> Any:
    if isinstance(node, Table):
        return {name: _plain(inner) for name, inner in node.entries.items()}
    if isinstance(node, Array):
        return [_plain(inner) for inner in node.items]
    assert isinstance(node, Leaf)
    return node.value


def _leaves(raw: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if isinstance(raw, dict):
        return {leaf for name, inner in raw.items() for leaf in _leaves(inner, (*path, name))}
    return {path}


@STEADY
@given(tables)
def test_a_tree_holds_what_it_was_grown_from(raw: Any) -> None:
    assert _plain(grow(raw, "f")) == raw


@STEADY
@given(tables, tables)
def test_files_without_a_common_key_merge_to_both_in_either_order(one: Any, other: Any) -> None:
    one, other = {"one": one}, {"other": other}
    for first, second in ((one, other), (other, one)):
        found = Faults()
        assert _plain(merge(_table(first, "1"), _table(second, "2"), found)) == {**one, **other}
        assert not found.found()


@STEADY
@given(tables)
def test_a_file_merged_with_itself_clashes_at_every_value(raw: Any) -> None:
    found = Faults()
    merge(_table(raw, "1"), _table(raw, "2"), found)
    clashes = {tuple(fault.key.split(".")) for fault in found.found()}
    # of two empty arrays nobody can tell whether they are arrays of tables
    assert {path for path in _leaves(raw) if path and _at(raw, path) != []} == clashes


def _at(raw: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        raw = raw[name]
    return raw


@STEADY
@given(tables, tables)
def test_an_overlay_keeps_all_of_the_strong_and_of_the_weak_what_does_not_clash(weak: Any, strong: Any) -> None:
    over = _plain(overlay(_table(weak, "w"), _table(strong, "s")))
    assert _plain(overlay(_table(over, "o"), _table(strong, "s"))) == over
    for path in _leaves(strong):
        assert not path or _at(over, path) == _at(strong, path)
    assert set(over) == {*weak, *strong}


def test_every_value_knows_its_file_and_its_key() -> None:
    raw = tomllib.loads('[a]\nb = 1\n[[c]]\nname = "x"\nd = 1\n[[c]]\n"e f" = 1\n')
    tree = _table(raw, "f.toml")
    found: list[str] = []

    def walk(node: Node) -> None:
        assert node.source == "f.toml"
        found.append(node.key)
        for inner in node.entries.values() if isinstance(node, Table) else []:
            walk(inner)
        for inner in node.items if isinstance(node, Array) else []:
            walk(inner)

    walk(tree)
    assert found == ["", "a", "a.b", "c", "c[x]", "c[x].name", "c[x].d", "c[1]", 'c[1]."e f"']
