"""Messages between supervisor and worker: however they are cut, however slowly they are read, whoever has died."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator

import pytest

from gateway.channel import Adopt, Adopted, Channel, Failed, Leave, Message, Ready, packed, pair, unpacked
from gateway.config.load import load

MESSAGES: list[Message] = [Ready(), Adopted(7, "no such file"), Leave(pre_stop=True), Failed("x" * 300)]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def framed(messages: list[Message]) -> bytes:
    """What a channel sends of *messages*."""
    sent, raw = socket.socketpair()
    channel = Channel(sent)
    for message in messages:
        channel.send(message)
    channel.close()
    data = b""
    while piece := raw.recv(1 << 20):
        data += piece
    raw.close()
    return data


def received(channel: Channel) -> list[Message]:
    messages = channel.receive()
    assert messages is not None
    return messages


def test_messages_arrive_in_order_and_as_they_were(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    for message in MESSAGES:
        ours.send(message)
    assert received(theirs) == MESSAGES
    assert received(theirs) == [], "nothing more has come, and nobody waits for it"


def test_a_configuration_arrives_as_it_was(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    config = load([], {}, {})
    theirs.send(Adopt(2, packed(config)))
    (message,) = received(ours)
    assert isinstance(message, Adopt) and message.generation == 2 and unpacked(message.config) == config


def test_both_ends_speak_at_once(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send(Leave())
    theirs.send(Ready())
    assert (received(ours), received(theirs)) == ([Ready()], [Leave()])


def test_messages_cut_at_every_byte_are_whole() -> None:
    data = framed(MESSAGES)
    for cut in range(len(data) + 1):
        raw, sock = socket.socketpair()
        channel = Channel(sock)
        found: list[Message] = []
        for part in (data[:cut], data[cut:]):
            if part:
                raw.sendall(part)
                found += received(channel)
        assert found == MESSAGES, cut
        raw.close()
        channel.close()


def test_messages_that_come_byte_by_byte_are_whole() -> None:
    raw, sock = socket.socketpair()
    channel = Channel(sock)
    found: list[Message] = []
    for byte in framed(MESSAGES[:2]):
        raw.sendall(bytes([byte]))
        found += received(channel)
    assert found == MESSAGES[:2]
    raw.close()
    channel.close()


def test_what_the_other_end_does_not_take_waits_and_is_sent_on(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    count = 0
    while not ours.has_unsent:
        ours.send(Failed(f"{count}" + "x" * 10_000))
        count += 1
    for _ in range(50):  # behind what waits: the order holds
        ours.send(Failed(f"{count}"))
        count += 1
    found: list[Message] = []
    while len(found) < count:
        found += received(theirs)
        ours.flush()
    assert [int(message.text.rstrip("x")) for message in found if isinstance(message, Failed)] == list(range(count))
    assert not ours.has_unsent


def test_the_last_words_of_a_process_are_heard_and_then_its_end(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.send(Failed("why"))
    theirs.close()
    assert received(ours) == [Failed("why")]
    assert ours.receive() is None
    assert ours.receive() is None


def test_a_message_that_its_sender_did_not_end_is_none() -> None:
    raw, sock = socket.socketpair()
    channel = Channel(sock)
    raw.sendall(framed([Ready()]) + framed([Failed("never told")])[:-1])
    raw.close()
    assert received(channel) == [Ready()]
    assert channel.receive() is None
    channel.close()


def test_what_is_told_to_the_dead_is_lost_and_harms_nobody(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    for _ in range(3):
        ours.send(Leave())
        assert not ours.has_unsent, "nobody waits for the dead to read"
    assert ours.receive() is None


def test_what_waits_for_one_that_dies_is_dropped(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    while not ours.has_unsent:
        ours.send(Failed("x" * 10_000))
    theirs.close()
    ours.flush()
    assert not ours.has_unsent


def test_a_channel_never_blocks_and_can_be_watched(ends: tuple[Channel, Channel]) -> None:
    ours, _ = ends
    assert ours.receive() == [] and not ours.sock.getblocking()
    assert ours.fileno() == ours.sock.fileno()


def test_a_length_of_more_than_a_read_is_waited_for(ends: tuple[Channel, Channel]) -> None:
    """A configuration may be larger than one read takes."""
    ours, theirs = ends
    ours.send(Failed("y" * 1_000_000))
    reads = 0
    found: list[Message] = []
    while not found:
        found = received(theirs)
        ours.flush()
        reads += 1
    assert reads > 1 and len(pickle.dumps(found[0])) > 1_000_000
