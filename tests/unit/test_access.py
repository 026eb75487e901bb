"""Log lines: what they look like, and that no destination, however ill, holds up the one who records them."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.observe.access import AccessLog, Outlet, outlet
from gateway.observe.counters import Counter
from gateway.observe.logs import Level, Log, Stamp, redact

CLOSING = 10.0  # seconds that a test waits for the writer thread; it takes a few milliseconds
LINE = {"n": "x" * 93}
SIZE = len(json.dumps(LINE, separators=(",", ":"))) + 1


class Pipe:
    """A pipe whose writing end belongs to a log."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.outlet = Outlet(self.writer, owned=True)

    def fill(self) -> int:
        """Write until it is full; returns how many bytes that took."""
        os.set_blocking(self.writer, False)
        filled = 0
        try:
            while True:
                filled += os.write(self.writer, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(self.writer, True)
            return filled

    def read(self, size: int) -> bytes:
        """Exactly *size* bytes, or those before the end."""
        read = b""
        while len(read) < size and (more := os.read(self.reader, size - len(read))):
            read += more
        return read


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reader)


def access_log(
    *outlets: Outlet, limit: int = 1 << 20, style: Literal["json", "pretty"] = "json"
) -> tuple[AccessLog, Counter]:
    dropped = Counter()
    return AccessLog(outlets, limit, style, dropped), dropped


def written(act: Callable[[AccessLog], object], style: Literal["json", "pretty"] = "json") -> str:
    """What *act* leaves behind, which must be less than a pipe holds."""
    reader, writer = os.pipe()
    log, dropped = access_log(Outlet(writer, owned=True), style=style)
    act(log)
    assert log.close(CLOSING) and dropped.value == 0 and log.held == 0
    with open(reader, encoding="utf-8", newline="") as lines:
        return lines.read()


def one_line(fields: dict[str, Any], style: Literal["json", "pretty"]) -> str:
    text = written(lambda log: log.record(fields), style)
    assert text.splitlines() == [text[:-1]]
    return text


def test_lines_arrive_in_every_outlet_whole_and_in_order(tmp_path: Path, pipe: Pipe) -> None:
    path = tmp_path / "log"
    log, dropped = access_log(pipe.outlet, outlet(str(path)))
    for i in range(5):
        log.record({"i": i})
        log.flush()
    assert log.close(CLOSING)
    assert pipe.read(1 << 30) == path.read_bytes() == b"".join(b'{"i":%d}\n' % i for i in range(5))
    assert dropped.value == 0 and log.held == 0


def test_what_was_written_makes_room_for_more(pipe: Pipe) -> None:
    log, dropped = access_log(pipe.outlet, limit=2 * SIZE)
    for _ in range(5):
        log.record(LINE)
        log.flush()
        # Once this line has come, the one before it no longer counts.
        assert json.loads(pipe.read(SIZE)) == LINE
    assert log.close(CLOSING) and log.held == 0 and dropped.value == 0


def test_more_than_one_piece_is_written_whole(pipe: Pipe) -> None:
    log, dropped = access_log(pipe.outlet, limit=4 << 20)
    for i in range(10_000):
        log.record({**LINE, "i": i})
    log.flush()
    last = b'"i":9999}\n'
    read = b""
    while not read.endswith(last):
        read += os.read(pipe.reader, 1 << 16)
    assert [json.loads(line)["i"] for line in read.splitlines()] == list(range(10_000))
    assert log.close(CLOSING) and dropped.value == 0


def test_a_full_pipe_never_blocks_and_what_passes_the_bound_is_dropped_and_counted(pipe: Pipe) -> None:
    filled = pipe.fill()
    log, dropped = access_log(pipe.outlet, limit=10 * SIZE)
    for _ in range(4):
        log.record(LINE)
    # From here on the thread has lines in its hands and cannot get rid of them.
    log.flush()
    for _ in range(100):
        log.record(LINE)
        log.flush()
        assert log.held <= 10 * SIZE
    assert log.held == 10 * SIZE and dropped.value == 94
    assert not log.close(0)
    assert pipe.read(filled) == b"." * filled
    assert pipe.read(10 * SIZE).count(b"\n") == 10
    assert log.close(CLOSING) and log.held == 0 and dropped.value == 94
    assert pipe.read(1 << 30) == b""


def test_a_line_that_fits_exactly_is_taken_and_one_byte_more_is_not(pipe: Pipe) -> None:
    for limit, taken in ((SIZE, 1), (SIZE - 1, 0)):
        log, dropped = access_log(Outlet(pipe.writer, owned=False), limit=limit)
        log.record(LINE)
        assert log.held == taken * SIZE and dropped.value == 1 - taken
        assert log.close(CLOSING)
    os.close(pipe.writer)
    assert pipe.read(1 << 30).count(b"\n") == 1


def test_a_full_pipe_that_does_not_block_is_waited_for(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = pipe.fill()
    os.set_blocking(pipe.writer, False)
    log, dropped = access_log(pipe.outlet)
    log.record(LINE)
    tries, write = itertools.count(), os.write
    monkeypatch.setattr(os, "write", lambda fd, piece: (next(tries), write(fd, piece))[1])
    assert not log.close(0)
    assert pipe.read(filled + SIZE).endswith(b'"}\n')
    assert log.close(CLOSING) and dropped.value == 0
    # Without a wait between them there would be many.
    assert next(tries) <= 2


def test_lines_larger_than_a_pipe_are_written_in_parts(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe.writer, False)
    log, dropped = access_log(pipe.outlet)
    for _ in range(200):
        log.record(LINE)
    log.flush()
    assert pipe.read(200 * SIZE).count(b"\n") == 200
    assert log.close(CLOSING) and dropped.value == 0


def broken_pipe() -> Outlet:
    reader, writer = os.pipe()
    os.close(reader)
    return Outlet(writer, owned=True)


@pytest.mark.parametrize("ill", [broken_pipe, lambda: outlet("/dev/full")], ids=["no reader", "full disk"])
def test_an_ill_destination_costs_its_lines_and_nothing_else(tmp_path: Path, ill: Callable[[], Outlet]) -> None:
    path = tmp_path / "log"
    log, dropped = access_log(ill(), outlet(str(path)))
    for _ in range(3):
        log.record(LINE)
        log.flush()
    assert log.close(CLOSING) and log.close(CLOSING) and log.held == 0
    assert dropped.value == 3 and path.read_bytes().count(b"\n") == 3


class Disk:
    """Stands in for os.write on one descriptor: a disk with *room* bytes, then full until it is given more."""

    def __init__(self, fd: int, room: int, monkeypatch: pytest.MonkeyPatch, fault: int = errno.ENOSPC) -> None:
        self.room = room
        self.kept = b""
        self.write = os.write
        self.fd = fd
        self.fault = fault
        monkeypatch.setattr(os, "write", self)

    def __call__(self, fd: int, data: memoryview) -> int:
        if fd != self.fd:
            return self.write(fd, data)
        if not self.room:
            raise OSError(self.fault, os.strerror(self.fault))
        taken = bytes(data[: self.room])
        self.kept += taken
        self.room -= len(taken)
        return len(taken)


@pytest.mark.parametrize(
    ("room", "lost", "kept"),
    [(0, 2, "3 4"), (1, 2, "1 3 4"), (2, 1, "1 3 4"), (3, 1, "1 2 3 4"), (4, 0, "1 2 3 4")],
)
def test_a_line_that_broke_off_on_a_full_disk_is_not_glued_to_the_next(
    room: int, lost: int, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, disk = Outlet(1, owned=False), Disk(1, room, monkeypatch)
    assert made.write(b"1\n2\n") == lost
    disk.room = 100
    assert [made.write(b"3\n"), made.write(b"4\n")] == [0, 0]
    assert disk.kept.split(b"\n") == [*kept.encode().split(), b""]


def test_a_torn_line_stays_to_be_ended_while_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    made, disk = Outlet(1, owned=False), Disk(1, 1, monkeypatch)
    assert [made.write(b"1\n"), made.write(b"2\n3\n")] == [1, 2]
    disk.room = 1
    assert made.write(b"4\n") == 1
    disk.room = 100
    assert made.write(b"5\n") == 0 and disk.kept == b"1\n5\n"


def test_a_destination_that_nobody_reads_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, disk = Outlet(1, owned=False), Disk(1, 0, monkeypatch, errno.EPIPE)
    assert made.write(b"1\n") == 1
    disk.room = 100
    assert made.write(b"2\n3\n") == 2 and disk.kept == b""


def test_a_file_is_appended_to_and_made_for_the_owner_and_the_group(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        for i in range(2):
            log, _ = access_log(outlet(str(path)))
            log.record({"i": i})
            assert log.close(CLOSING)
    finally:
        os.umask(before)
    assert path.read_bytes() == b'{"i":0}\n{"i":1}\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_destination_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in (tmp_path, tmp_path / "no" / "log", tmp_path / "fifo"):
        with pytest.raises(OSError, match=str(name)):
            outlet(str(name))


def test_a_closed_log_drops_lines_and_leaves_no_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    log, dropped = access_log(outlet(str(tmp_path / "used")), outlet(str(tmp_path / "too")))
    log.record(LINE)
    assert log.close(CLOSING) and log.close(CLOSING)
    log.record(LINE)
    log.flush()
    assert dropped.value == 1
    unused, _ = access_log(outlet(str(tmp_path / "unused")))
    assert unused.close(0)
    assert os.listdir("/proc/self/fd") == before


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_a_line_that_cannot_be_made_is_counted(style: Literal["json", "pretty"]) -> None:
    log, dropped = access_log(style=style)
    log.record({"a": Mute()})
    assert dropped.value == 1 and log.held == 0


ODD: dict[str, tuple[object, object]] = {
    "bytes": (b"caf\xc3\xa9", "café"),
    "broken bytes": (b"\xff\x00", "\\xff\x00"),
    "half a surrogate pair": ("a\ud800b", "a\\ud800b"),
    "an integer of 70 bits": (1 << 70, str(1 << 70)),
    "a path": (Path("/tmp"), "/tmp"),
    "lines": ("a\r\nb\x1b[31m\u2028c\x85d\u202ee\u2066", "a\r\nb\x1b[31m\u2028c\x85d\u202ee\u2066"),
}


@pytest.mark.parametrize(("value", "shown"), ODD.values(), ids=ODD)
def test_odd_values_are_shown_as_text_on_one_line(value: object, shown: object) -> None:
    text = one_line({"a": value, "status": 200}, "json")
    assert json.loads(text) == {"a": shown, "status": 200}
    assert not set(text) & set("\x1b\x85\u2028\u202e\u2066")


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(-(2**63), 2**64 - 1) | st.none()))
@example({"a": "\u2029"})
def test_any_fields_make_one_line_of_json(fields: dict[str, Any]) -> None:
    assert json.loads(one_line(fields, "json")) == fields


def test_a_text_that_nobody_cut_is_cut_before_it_fills_the_log() -> None:
    line = json.loads(one_line({"a": "x" * 100_000, "b": 1}, "json"))
    assert line == {"a": "x" * 256, "b": 1}


def test_a_reason_is_told_whole_as_far_as_an_operator_reads() -> None:
    reason = "\n".join(f"gateway.toml: key[{number}]: is wrong, expected right" for number in range(30))
    assert 256 < len(reason) < 2048
    (line,) = logged(lambda log: log.warning("refused", reason=reason, other=reason))
    assert line["reason"] == reason and line["other"] == reason[:256]
    (line,) = logged(lambda log: log.warning("refused", reason="x" * 3000))
    assert line["reason"] == "x" * 2048
    assert "x" * 2048 in one_line({"reason": "x" * 3000}, "pretty")


def test_a_pretty_line_is_for_reading() -> None:
    fields = {"ts": "now", "level": "info", "msg": "hello you", "a": 1, "b": "x y", "c": "", "d": "\x1b\n\u2028"}
    assert one_line(fields, "pretty") == 'now INFO    hello you a=1 b="x y" c="" d="\\u001b\\n\\u2028"\n'


@given(st.text(max_size=20))
@example('" b="c')
def test_no_text_makes_a_pretty_line_say_something_else(value: str) -> None:
    text = one_line({"a": value, "z": 1}, "pretty")
    shown = text[2:-5]
    assert text == f"a={shown} z=1\n" and (json.loads(shown) if shown[0] == '"' else shown) == value


def test_a_stamp_is_rfc_3339_in_utc_with_milliseconds_even_when_the_clock_jumps() -> None:
    now = [0.0]
    stamp = Stamp(lambda: now[0])
    seconds = ((37.0, "37.000"), (37.25, "37.250"), (37.9999, "37.999"), (38.0, "38.000"), (37.5, "37.500"))
    for at, text in seconds:
        now[0] = 1795324860 + at
        assert stamp() == f"2026-11-22T05:21:{text}Z"
    now[0] = 0.001
    assert stamp() == "1970-01-01T00:00:00.001Z"


def logged(act: Callable[[Log], object], level: Level = Level.DEBUG) -> list[dict[str, Any]]:
    stamp = Stamp(lambda: 0.0)
    text = written(lambda lines: act(Log(lines, level, stamp)))
    return [json.loads(line) for line in text.splitlines()]


def test_a_message_is_a_line_with_its_time_level_and_fields() -> None:
    (line,) = logged(lambda log: log.info("listening", port=8080, host="::1", msg="x", level="y"))
    ours = {"ts": "1970-01-01T00:00:00.000Z", "level": "info", "msg": "listening"}
    assert list(line.items()) == [*ours.items(), ("port", 8080), ("host", "::1")]


@pytest.mark.parametrize("level", list(Level))
def test_messages_below_the_level_are_not_written(level: Level) -> None:
    def act(log: Log) -> None:
        for say in (log.debug, log.info, log.warning, log.error):
            say("text")

    lines = logged(act, level)
    assert [line["level"] for line in lines] == [each.name.lower() for each in Level if each >= level]


CANARY = "c4n4ry-0123456789"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"sk-{CANARY}", "[redacted]"),
        (f"hr_{CANARY}", "[redacted]"),
        (f"sk-proj-{CANARY}_x", "[redacted]"),
        (f"Bearer {CANARY}", "[redacted]"),
        (f"authorization: bEARER  {CANARY}, x", "authorization: [redacted], x"),
        (f"no key sk-{CANARY} here, nor hr_{CANARY}.", "no key [redacted] here, nor [redacted]."),
        (f"http://user:{CANARY}@host:1/v1", "http://[redacted]@host:1/v1"),
        (f"eyJhbGciOiJIUzI1NiJ9.{CANARY}.{CANARY}", "[redacted]"),
        (f"sk-{CANARY}".encode(), "[redacted]"),
        (ValueError(f"bad key 'sk-{CANARY}'"), "bad key '[redacted]'"),
        ({"authorization": f"Bearer {CANARY}"}, "{'authorization': '[redacted]'}"),
        ("x" * 250 + f" sk-{CANARY}", "x" * 250 + " [reda"),
        ("task-force-seven, risk-free, mask-0123456789", "task-force-seven, risk-free, mask-0123456789"),
        ("http://host/a@b", "http://host/a@b"),
        ("y" * 300, "y" * 256),
        (b"\xff", "\\xff"),
        (7, 7),
        (0.5, 0.5),
        (True, True),
        (None, None),
        (Mute(), "<Mute>"),
    ],
)
def test_a_field_shows_no_secret_and_no_more_than_256_characters(value: object, shown: object) -> None:
    assert redact(value) == shown
    (line,) = logged(lambda log: log.error(f"{CANARY[:4]} sk-{CANARY}", value=value))
    assert line["value"] == shown and line["msg"] == "c4n4 [redacted]"


@pytest.mark.parametrize("name", ["authorization", "api_key", "cookie", "token", "password"])
def test_a_field_that_is_called_a_secret_is_one(name: str) -> None:
    (line,) = logged(lambda log: log.warning("refused", **{name: "dev-key"}))
    assert line[name] == "[redacted]"
