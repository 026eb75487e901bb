"""What passes from one supervisor to the next: the state, the order, the sockets, the messages."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway import host, upgrade
from gateway.channel import Channel, Closing, Leave, Ready, packed, pair
from gateway.config.schema import Config, Logging, Server
from gateway.crew import Note
from gateway.listener import Listener, ListenerNote, ListenError, is_there, judge
from gateway.observe.access import DirectLines
from gateway.observe.logs import Level, Log, Stamp
from gateway.page import Page
from gateway.upgrade import State, Succession, UpgradeError, decoded, encoded, last_word, order


def state(listening: ListenerNote | None = None, page: int = 9, **more: int) -> State:
    note = Note(1, 0, 2, 5, "SERVING", 300.0, None, 11, b"\0\xff", b"rest")
    where = listening or ListenerNote("127.0.0.1", 0, 8080, [3, 4])
    return State(generation=5, page=page, rows=8, listening=where, children=[note] if listening is None else [], **more)


# --- the state ---


def test_a_state_is_read_as_it_was_written() -> None:
    assert decoded(encoded(state())) == state()


def test_what_a_newer_one_says_beside_is_passed_over() -> None:
    said = msgspec.msgpack.decode(encoded(state()))
    said["novelty"] = said["listening"]["novelty"] = 7
    assert decoded(msgspec.msgpack.encode(said)) == state()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(state(language=99)), "speaks version 99"),
        (msgspec.msgpack.encode({"language": 99, "all": "else differs"}), "speaks version 99"),
        (msgspec.msgpack.encode({"language": upgrade.LANGUAGE}), "cannot be read"),
        (b"", "cannot be read"),
        (b"\xc1", "cannot be read"),
    ],
)
def test_a_state_that_is_not_understood_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UpgradeError, match=reason):
        decoded(data)


# --- the order ---


def given(monkeypatch: pytest.MonkeyPatch, purpose: str, state: State, *more: int) -> None:
    at = os.memfd_create("state")
    os.write(at, encoded(state))
    monkeypatch.setenv(upgrade.VARIABLE, ":".join([purpose, str(at), *map(str, more)]))


def test_whom_nobody_ordered_has_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(upgrade.VARIABLE, raising=False)
    assert order() is None
    monkeypatch.setenv(upgrade.VARIABLE, "anything else")
    assert order() is None
    assert upgrade.VARIABLE not in os.environ


def test_an_order_to_take_over_is_given_once_and_its_descriptors_go_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        page = os.memfd_create("page")
        for fd in (page, sock.fileno()):
            os.set_inheritable(fd, True)
        said = state(ListenerNote("127.0.0.1", 0, sock.getsockname()[1], [sock.fileno()]), page)
        given(monkeypatch, "take", said)
        found = order()
        assert found is not None and found.state == said and found.control is None
        assert not os.get_inheritable(page) and not sock.get_inheritable()
        assert order() is None
        os.close(page)


def test_a_trial_answers_where_it_was_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair()
    given(monkeypatch, "try", state(), os.dup(theirs.fileno()))
    theirs.close()
    found = order()
    assert found is not None and found.state == state() and found.control is not None
    found.control.send(Ready())
    assert ours.receive() == [Ready()]
    found.control.close()
    ours.close()


# --- the program ---


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener(Server(port=0), 2)
    yield listener
    listener.close()


def test_a_program_that_cannot_be_run_leaves_everything_as_it_was(
    monkeypatch: pytest.MonkeyPatch, listener: Listener
) -> None:
    page = Page.make(2)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    before = len(os.listdir("/proc/self/fd"))
    reason = Succession(page, listener).replace([], 1, b"configuration")
    assert reason == "/nonexistent/python cannot be run: No such file or directory"
    assert len(os.listdir("/proc/self/fd")) == before
    assert not any(os.get_inheritable(fd) for fd in (page.fd, *(sock.fileno() for sock in listener.socks)))
    page.close()


def test_a_script_is_run_as_such_and_a_module_by_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, listener: Listener, tmp_path: Path
) -> None:
    page, ran = Page.make(2), []

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        ran.append((path, arguments))
        raise FileNotFoundError(2, "No such file or directory")

    script = tmp_path / "headrace"
    script.write_text("#!/nonexistent/python\n")
    monkeypatch.setattr(upgrade.os, "execve", execve)
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    monkeypatch.setattr(sys, "orig_argv", ["python", str(script), "serve"])
    succession = Succession(page, listener)
    assert succession.replace([], 1, b"").startswith("/venv/bin/python cannot")  # it cannot be run by itself
    script.chmod(0o755)
    assert succession.replace([], 1, b"").startswith(f"{script} cannot")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "gateway", "serve"])
    succession.replace([], 1, b"")
    assert ran == [
        ("/venv/bin/python", ["/venv/bin/python", str(script), "serve"]),
        (str(script), [str(script), "serve"]),
        ("/venv/bin/python", ["/venv/bin/python", "-X", "dev", "-m", "gateway", "serve"]),
    ]
    page.close()


@pytest.mark.parametrize(
    ("text", "last"),
    [
        (
            b"Traceback:\n  File\nModuleNotFoundError: No module named 'x'\n\n",
            "ModuleNotFoundError: No module named 'x'",
        ),
        (b"no \xff line end", "no \ufffd line end"),
        (b"\n \n", "it ended without a word"),
        (b"", "it ended without a word"),
    ],
)
def test_the_last_word_of_a_trial_is_its_last_line(text: bytes, last: str) -> None:
    words = os.memfd_create("words")
    os.write(words, text)
    assert last_word(words) == last
    os.close(words)


# --- the sockets ---


@pytest.mark.parametrize("count", range(1, 7))
def test_every_worker_accepts_somewhere_and_every_socket_is_some_workers(count: int) -> None:
    listener = Listener(Server(port=0), 3)
    shares = [listener.share(number, count) for number in range(count)]
    assert all(shares)
    assert {sock for share in shares for sock in share} == set(listener.socks)
    listener.close()


def again(listener: Listener, count: int, **server: object) -> Listener:
    """What the next process makes of *listener*."""
    noted = listener.noted()
    copies = [os.dup(fd) for fd in noted.descriptors]
    settings = msgspec.structs.replace(Server(port=0), **server)
    return Listener(settings, count, msgspec.structs.replace(noted, descriptors=copies))


@pytest.mark.parametrize(("count", "sockets"), [(1, 2), (2, 2), (5, 5)])
def test_sockets_are_added_where_there_are_more_workers_and_never_taken_away(
    listener: Listener, count: int, sockets: int
) -> None:
    successor = again(listener, count)
    assert successor.url == listener.url and len(successor.socks) == sockets and not successor.flaw
    assert {sock.getsockname() for sock in successor.socks} == {listener.socks[0].getsockname()}
    assert is_there(successor.noted(), Server(port=0))
    successor.close()


def test_the_port_that_was_found_may_be_asked_for_by_its_number(listener: Listener) -> None:
    port = listener.socks[0].getsockname()[1]
    assert is_there(listener.noted(), Server(port=port))
    assert not is_there(listener.noted(), Server(port=port + 1))
    assert not is_there(listener.noted(), Server(host="0.0.0.0", port=port))
    successor = again(listener, 2, port=port)
    assert successor.noted().port == port
    successor.close()


def test_another_address_is_judged_before_anything_changes(listener: Listener, socket_folder: Path) -> None:
    port = listener.socks[0].getsockname()[1]
    judge(listener.noted(), Server(host="0.0.0.0", port=port))  # its own port, at another address
    judge(listener.noted(), Server(host=f"unix:{socket_folder}/here.sock"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1 port {number}: Address already in use"):
            judge(listener.noted(), Server(port=number))
    with pytest.raises(ListenError, match="folder"):
        judge(listener.noted(), Server(host=f"unix:{socket_folder}/nowhere/here.sock"))
    assert not os.listdir(socket_folder)


def test_the_file_of_a_socket_is_kept_with_another_mode(socket_folder: Path) -> None:
    path = socket_folder / "here.sock"
    host = f"unix:{path}"
    first = Listener(Server(host=host), 2)
    second = again(first, 3, host=host, socket_mode="0600")
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_there(second.noted(), Server(host=host, port=1))
    second.close()
    assert not path.exists()
    first.close()


# --- the messages ---


class Novelty(msgspec.Struct, tag=True):
    """What a later version may say."""

    text: str = "new"


def said(*messages: msgspec.Struct) -> bytes:
    parts = [msgspec.msgpack.encode(message) for message in messages]
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def test_a_message_that_is_not_known_is_passed_over() -> None:
    ours, theirs = pair()
    theirs.sock.send(said(Ready(), Novelty(), Closing()))
    assert ours.receive() == [Ready(), Closing()]
    theirs.sock.send(said(Novelty()))
    assert ours.receive() == []
    ours.close()
    theirs.close()


def test_a_field_that_is_not_known_is_passed_over() -> None:
    later = msgspec.defstruct("Later", [("replaced", bool, True), ("novelty", int, 7)], tag="Leave")
    ours, theirs = pair()
    ours.sock.send(said(later()))
    assert theirs.receive() == [Leave(replaced=True)]
    ours.close()
    theirs.close()


def test_a_message_that_is_half_read_or_half_sent_survives_its_process() -> None:
    ours, theirs = pair()
    whole = said(Ready())
    theirs.sock.send(whole[:7])
    assert ours.receive() == []
    ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(2000):
        ours.send(Leave(replaced=True))
    assert ours.has_unsent
    successor = Channel(ours.sock.dup(), *ours.rest)
    ours.close()
    theirs.sock.send(whole[7:])
    assert successor.receive() == [Ready()]
    found = 0
    while successor.has_unsent or found < 2000:
        found += len(theirs.receive() or [])
        successor.flush()
    assert found == 2000
    successor.close()
    theirs.close()


# --- what the next process takes ---


def test_addresses_of_before_are_left_too_until_nobody_accepts_there(listener: Listener, socket_folder: Path) -> None:
    """A second upgrade comes before the workers of the first one's predecessor have let go."""
    page = Page.make(2)
    file = socket_folder / "former"
    former = Listener(Server(host=f"unix:{file}"), 1)
    left = decoded(encoded(Succession(page, listener, lambda: [former])._state([], 1)))
    assert left.former == [former.noted()] and {sock.fileno() for sock in former.socks} <= {*left.descriptors}
    log = Log(DirectLines([], "json"), Level.ERROR, Stamp())
    _, taken = host._taken_listeners(left, Config(server=Server(port=0)), 1, log)
    assert taken.now.url == listener.url and file.exists()
    taken.close_former()
    assert not file.exists()
    for one in (taken.now, former, listener):  # these processes are one: their sockets have the same descriptors
        for sock in one.socks:
            sock.detach()
    os.close(left.listening.descriptors[0])
    os.close(left.listening.descriptors[1])
    page.close()


def test_a_configuration_that_cannot_be_read_after_its_trial_is_read_anew() -> None:
    told = Config()
    left = state()
    assert host._left(left, lambda: told) is told
    left.config = packed(Config())
    assert host._left(left, lambda: told) == told


def test_a_log_that_cannot_be_opened_leaves_no_socket_file(
    socket_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "raise_limit", lambda: None)
    at, output = socket_folder / "socket", (str(tmp_path / "nowhere" / "log"),)
    told = Config(server=Server(host=f"unix:{at}", workers=1), logging=Logging(output=output))
    with pytest.raises((OSError, ValueError), match="nowhere"):
        host.run(lambda: told, [], lambda url: None)
    assert not list(socket_folder.iterdir())
