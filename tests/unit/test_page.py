"""The page that processes share: rows, directories, the lock, and sums that move."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from gateway.columns import Columns
from gateway.observe.counters import Counter, Gauge, Histogram, Measures
from gateway.observe.rows import HostRows
from gateway.observe.shared import CELL_LIMIT, SharedCounts, bury
from gateway.page import (
    COLUMNS_LIMIT,
    CONNECTIONS,
    LOAD_CELLS,
    METRIC_CELLS,
    METRIC_CELLS_KEPT,
    PID,
    Page,
    PageError,
    Row,
    Seat,
)


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.make(4)
    yield page
    page.close()


def in_child(act: Callable[[], None]) -> int:
    """Fork, *act*, and wait here until it is done; its status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_row_is_seen_by_every_process(page: Page) -> None:
    def write() -> None:
        mine = Page(page.fd).rows[2]
        mine.cells[CONNECTIONS] = 7
        mine.calls[COLUMNS_LIMIT - 1] = 8
        mine.metrics[METRIC_CELLS - 1] = -9

    assert in_child(write) == 0
    row = page.rows[2]
    assert (row.cells[CONNECTIONS], row.calls[COLUMNS_LIMIT - 1], row.metrics[METRIC_CELLS - 1]) == (7, 8, -9)
    assert not any(any(other.calls) for other in page.rows if other is not row)
    row.clear(COLUMNS_LIMIT, METRIC_CELLS)
    assert not any((*row.cells, *row.calls, *row.metrics))


def test_burying_the_dead_clears_what_was_given_away_and_touches_no_more(page: Page) -> None:
    dead = page.rows[2]
    Columns(Seat(page, page.rows[1])).use(b"peer")
    at = page.metrics.first(b"slevel", 3)
    assert at is not None

    def live() -> None:
        mine = Page(page.fd)
        row = mine.rows[2]
        row.cells[PID] = 7
        columns = Columns(Seat(mine, row))
        for name in (b"peer", b"a peer that the supervisor has not heard of"):
            column = columns.use(name)
            assert column is not None
            row.calls[column] = row.words[column] = 6
        row.metrics[at + 2] = 9

    assert in_child(live) == 0
    before = os.stat(f"/proc/self/fd/{page.fd}").st_blocks
    bury(page, dead)
    more = (os.stat(f"/proc/self/fd/{page.fd}").st_blocks - before) * 512
    assert more <= 64 << 10, "cells that nobody uses take no memory"
    assert not any((*dead.cells, *dead.calls, *dead.words, *dead.holds, *dead.metrics))
    assert page.rows[0].metrics[at + 2] == 9


def test_what_servers_tell_is_seen_by_every_process_and_stands_in_nobody_s_cells(page: Page) -> None:
    def write() -> None:
        mine = Page(page.fd)
        mine.loads[0] = 7
        mine.loads[COLUMNS_LIMIT * LOAD_CELLS - 1] = 8

    assert in_child(write) == 0
    assert (page.loads[0], page.loads[-1], len(page.loads)) == (7, 8, COLUMNS_LIMIT * LOAD_CELLS)
    assert not any(page.circuits) and not any(any(row.metrics[-8:]) for row in page.rows)


def test_neighbours_are_the_others_that_live(page: Page) -> None:
    page.rows[1].cells[PID] = 10
    page.rows[3].cells[PID] = 30
    assert [row.number for row in page.neighbours(page.rows[1])] == [3]
    assert [row.number for row in page.neighbours(page.rows[2])] == [1, 3]


def test_a_name_has_the_same_number_everywhere_whoever_asks_first(page: Page) -> None:
    assert page.metrics.first(b"a", 3) == 0

    def ask() -> None:
        mine = Page(page.fd).metrics
        assert mine.first(b"b", 20) == 3
        assert mine.first(b"a", 3) == 0

    assert in_child(ask) == 0
    assert page.metrics.first(b"b", 20) == 3
    assert page.metrics.first(b"c") == 23
    assert page.metrics.given == 24


def test_a_full_directory_gives_no_number_and_forgets_none(page: Page) -> None:
    room = METRIC_CELLS - METRIC_CELLS_KEPT
    assert page.metrics.first(b"most", room - 1) == 0
    assert page.metrics.first(b"two", 2) is None
    assert page.metrics.first(b"one") == room - 1
    assert page.metrics.first(b"none") is None
    assert page.metrics.first(b"kept", METRIC_CELLS_KEPT, kept=True) == room
    assert page.metrics.first(b"none", kept=True) is None
    assert page.metrics.first(b"most", room - 1) == 0


def test_the_bytes_of_names_are_bounded_too(page: Page) -> None:
    firsts = [page.metrics.first(b"%d" % number + b"x" * 40_000) for number in range(100)]
    assert firsts[:10] == list(range(10)) and firsts[-1] is None
    assert page.metrics.first(b"kept", kept=True) is not None


def test_the_lock_excludes_other_processes_and_goes_with_its_holder(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with Page(page.fd).lock():
                os.write(tell, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(told, 1) == b"x", "it has the lock"
        monkeypatch.setattr(page, "_tries", 3)
        with pytest.raises(PageError, match="too long"), page.lock():
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(told)
    with page.lock():
        pass


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are made, and take no time."""
    made: list[float] = []
    monkeypatch.setattr("gateway.page.time.sleep", made.append)
    return made


@contextmanager
def held(page: Page) -> Iterator[None]:
    """Another process hangs with the lock."""
    other = Page(os.dup(page.fd))
    with other.lock():
        yield
    other.close()


def test_a_lock_that_is_held_is_waited_for_once_and_in_a_loop_not_for_long(page: Page, naps: list[float]) -> None:
    in_loop = Page(os.dup(page.fd), in_loop=True)
    with held(page):
        for one, seconds in ((page, 1.0), (in_loop, 0.05)):
            for _ in range(5):
                with pytest.raises(PageError, match="too long"), one.lock():
                    pass
            assert 0.9 * seconds < sum(naps) <= seconds, "who waited in vain once only looks from then on"
            naps.clear()
    with in_loop.lock():
        pass
    with held(page), pytest.raises(PageError), in_loop.lock():
        pass
    assert naps, "it was free meanwhile: the next holder is waited for"
    in_loop.close()


def test_a_name_that_another_process_gave_needs_no_lock(page: Page, naps: list[float]) -> None:
    other = Page(os.dup(page.fd))
    first = other.metrics.first(b"a set")
    with held(page):
        assert page.metrics.first(b"a set") == first
    assert not naps
    other.close()


def test_while_the_lock_is_held_what_is_known_is_published_and_what_is_new_waits(page: Page, naps: list[float]) -> None:
    mine = Page(os.dup(page.fd), in_loop=True)
    measures, shared = counts(mine, mine.rows[1])
    measures.endings.child("--").value = 1
    shared.publish()
    measures.endings.child("--").value = 2
    for number in range(9):
        measures.endings.child(f"new {number}").value = 1
    tries = 0
    lock = mine.metrics._lock

    def counted() -> AbstractContextManager[None]:
        nonlocal tries
        tries += 1
        return lock()

    mine.metrics._lock = counted
    with held(page):
        shared.publish()
    assert tries == 1, "one is enough to know"
    _, others = counts(page, page.rows[2])
    page.rows[2].cells[PID] = 0

    def told() -> dict[str, float]:
        (family,) = (one for one in others.merged().families if one.name == "gateway_endings_total")
        return {label: child.value for (label,), child in family.children.items() if isinstance(child, Counter)}

    assert told() == {"--": 2}
    shared.publish()
    assert told() == {"--": 2} | {f"new {number}": 1 for number in range(9)}
    mine.close()


def test_names_that_many_processes_ask_for_at_once_have_each_one_number(page: Page) -> None:
    """The lock is contended for: without it two would be given the same place, or one name two places."""
    started, start = os.pipe()

    def ask(shift: int) -> list[int]:
        mine = Page(page.fd)
        os.read(started, 1)  # all begin at once: the end of the pipe
        return [mine.metrics.first(b"name %d" % ((at + shift) % 60), 3) or 0 for at in range(60)]

    answers: list[tuple[int, int]] = []
    for shift in range(0, 60, 15):
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(start)
            numbers = ask(shift)
            os.write(tell, b" ".join(b"%d" % numbers[(at - shift) % 60] for at in range(60)))
            os._exit(0)
        os.close(tell)
        answers.append((pid, told))
    os.close(start)
    os.close(started)
    said = []
    for pid, told in answers:
        said.append([int(number) for number in os.read(told, 1 << 16).split()])
        os.close(told)
        assert os.waitpid(pid, 0)[1] == 0
    assert said[0] == said[1] == said[2] == said[3], "a name has the same number everywhere"
    assert sorted(said[0]) == list(range(0, 180, 3)), "no two share a place, and none is lost"


def test_whoever_reads_while_sums_move_reads_again(page: Page) -> None:
    turns = 0
    for _ in page.steady():
        turns += 1
        if turns == 1:
            with page.folding():
                pass
    assert turns == 2


def test_a_page_of_another_version_is_refused(page: Page) -> None:
    os.pwrite(page.fd, b"\xff", 8)
    with pytest.raises(PageError, match="version"):
        Page(page.fd)


def counts(page: Page, row: Row) -> tuple[Measures, SharedCounts]:
    row.cells[PID] = 1
    measures = Measures("1")
    return measures, SharedCounts(Seat(page, row), measures.registry, lambda: Measures("1").registry)


def test_a_sum_that_no_cell_holds_stays_at_the_most_and_keeps_nobody_from_being_counted(page: Page) -> None:
    for at in (1, 2):
        measures, shared = counts(page, page.rows[at])
        measures.requests.child("GET", "/nonsense", "200").value += CELL_LIMIT + at
        measures.requests.child("GET", "/x", "200").value += at
        measures.body_budget.value = 2 * CELL_LIMIT
        shared.publish()
    bury(page, page.rows[2])
    bury(page, page.rows[1])
    families = {family.name: family for family in counts(page, page.rows[1])[1].merged().families}
    told = {labels[1]: child.value for labels, child in families["gateway_requests_total"].children.items()}  # type: ignore[union-attr]
    assert told == {"/nonsense": CELL_LIMIT, "/x": 3}


def test_what_all_have_counted_is_added_up_and_survives_the_dead(page: Page) -> None:
    (one, ours), (two, theirs) = counts(page, page.rows[1]), counts(page, page.rows[2])
    for measures, calls, lag in ((one, 3, 0.01), (two, 4, 2.0)):
        measures.requests.child("GET", "/x", "200").value += calls
        measures.body_budget.value = calls
        measures.loop_lag.observe(lag)
    theirs.publish()

    def shown() -> tuple[float, float, int, float]:
        families = {family.name: family for family in ours.merged().families}
        requests = families["gateway_requests_total"].children["GET", "/x", "200"]
        budget = families["gateway_body_budget_bytes"].children[()]
        lags = families["gateway_loop_lag_seconds"].children[()]
        assert isinstance(requests, Counter) and isinstance(budget, Gauge)
        return requests.value, budget.value, lags.count, round(lags.total, 6)  # type: ignore[union-attr]

    assert shown() == (7, 7, 2, 2.01)
    bury(page, page.rows[2])
    assert page.rows[2].cells[PID] == 0
    assert shown() == (7, 3, 2, 2.01), "sums stay, levels go with their process"
    again, successor = counts(page, page.rows[2])
    again.requests.child("GET", "/x", "200").value += 1
    successor.publish()
    assert shown()[0] == 8


def test_a_label_with_a_nul_is_shown_escaped_and_breaks_no_scrape(page: Page) -> None:
    measures, ours = counts(page, page.rows[1])
    measures.tokens.child("a\0b", "prompt").value += 5
    families = {family.name: family for family in ours.merged().families}
    counted = families["gateway_tokens_total"].children["a\\x00b", "prompt"]
    assert isinstance(counted, Counter) and counted.value == 5


def test_an_entry_whose_labels_do_not_fit_its_family_is_left_out(page: Page) -> None:
    for name in (b"sgateway_tokens_total", b"sgateway_tokens_total\0m\0prompt\0more", b"sgateway_no_such_total\0m"):
        page.metrics.first(name)
    measures, ours = counts(page, page.rows[1])
    measures.tokens.child("m", "prompt").value += 5
    families = {family.name: family for family in ours.merged().families}
    assert list(families["gateway_tokens_total"].children) == [("m", "prompt")]


def test_an_entry_of_another_width_is_left_out_and_written_by_nobody(page: Page) -> None:
    """A histogram of a former version, whose bounds were others."""
    page.metrics.first(b"sgateway_overhead_seconds", 3)
    beyond = page.metrics.first(b"sgateway_tokens_total\0m\0prompt")
    assert beyond == 3
    measures, ours = counts(page, page.rows[1])
    measures.overhead.observe(0.001)
    measures.tokens.child("m", "prompt").value += 5
    ours.publish()
    assert page.rows[1].metrics[:4].tolist() == [0, 0, 0, 5]
    families = {family.name: family for family in ours.merged().families}
    counted = families["gateway_tokens_total"].children["m", "prompt"]
    assert isinstance(counted, Counter) and counted.value == 5


def test_a_free_row_is_nobodys(page: Page) -> None:
    page.rows[1].cells[PID] = 10
    assert page.free().number == 2
    for row in page.rows[2:]:
        row.cells[PID] = 10
    with pytest.raises(PageError, match="no free row"):
        page.free()


def told(shared: SharedCounts, family: str) -> dict[tuple[str, ...], Counter | Gauge | Histogram]:
    (found,) = (one for one in shared.merged().families if one.name == family)
    return dict(found.children)


def values(shared: SharedCounts, family: str) -> dict[tuple[str, ...], float]:
    return {labels: child.value for labels, child in told(shared, family).items() if not isinstance(child, Histogram)}


def fill(page: Page, left: int) -> None:
    page.metrics.first(b"sfiller", METRIC_CELLS - METRIC_CELLS_KEPT - left - page.metrics.given)


def test_what_finds_no_cells_is_counted_as_other_by_all_workers_and_nothing_is_lost(page: Page) -> None:
    workers = [counts(page, page.rows[at]) for at in (1, 2)]
    for _, shared in workers:
        shared.publish()
    fill(page, 40)
    said: list[str] = []
    for measures, shared in workers:
        shared.on_full = said.append
        for turn in (1, 2, 3):
            for number in range(60):
                measures.requests.child("GET", f"/{number}", "200").value += 1
                measures.upstream_latency.child(f"b{number}").observe(0.001 * turn)
            shared.publish()
    assert said == ["gateway_requests_total"] * 2, "once a worker"
    requests = values(workers[0][1], "gateway_requests_total")
    other = ("other",) * 3
    assert len(requests) == 41 and requests.pop(other) == 2 * 3 * 20 and set(requests.values()) == {2 * 3}
    latency = told(workers[0][1], "gateway_upstream_latency_seconds")
    assert list(latency) == [("other",)]
    (histogram,) = latency.values()
    assert isinstance(histogram, Histogram)
    assert histogram.count == 2 * 3 * 60 and histogram.total == pytest.approx(2 * 60 * 0.006)
    folded = values(workers[1][1], "gateway_metrics_folded_total")
    assert folded["gateway_requests_total",] == 2 * 20 and folded["gateway_upstream_latency_seconds",] == 2 * 60
    bury(page, page.rows[2])
    assert values(workers[0][1], "gateway_requests_total")[other] == 2 * 3 * 20, "sums of the dead stay"


def test_levels_that_find_no_cells_are_shown_as_their_sum(page: Page) -> None:
    measures, shared = counts(page, page.rows[1])
    shared.publish()
    fill(page, 2)
    for number in range(5):
        measures.upstream_connections.watch((f"b{number}", "idle"), lambda number=number: number)  # type: ignore[misc]
    for _ in range(3):
        shared.publish()
    assert values(shared, "gateway_upstream_connections") == {
        ("b0", "idle"): 0,
        ("b1", "idle"): 1,
        ("other", "other"): 2 + 3 + 4,
    }


def test_a_worker_that_begins_when_the_page_is_full_counts_all_the_same(page: Page) -> None:
    fill(page, 0)
    measures, shared = counts(page, page.rows[1])
    measures.overhead.observe(0.001)
    measures.endings.child("--").value = 3
    shared.publish()
    assert values(shared, "gateway_endings_total") == {("other",): 3}
    (overhead,) = told(shared, "gateway_overhead_seconds").values()
    assert isinstance(overhead, Histogram) and overhead.count == 1


def test_what_is_kept_has_room_for_other_in_every_family(page: Page) -> None:
    """And for the families without labels: each is one set."""
    fill(page, 0)
    registry = Measures("1").registry
    for family in registry.families:
        if family.shared:
            family.child(*("other",) * len(family.labels))
    full: list[str] = []
    page.rows[1].cells[PID] = 1
    shared = SharedCounts(Seat(page, page.rows[1]), registry, lambda: Measures("1").registry)
    shared.on_full = full.append
    shared.publish()
    shown = {family.name for family in shared.merged().families if family.children}
    assert shown >= {family.name for family in registry.families if family.shared}
    assert page.metrics.given <= METRIC_CELLS - METRIC_CELLS_KEPT // 2, "and for as many again, of later versions"


def test_the_room_that_is_left_is_told(page: Page) -> None:
    rows = HostRows(seat := Seat(page, page.rows[1]))

    def used() -> dict[str, float]:
        (family,) = (one for one in rows.collect() if one.name == "gateway_page_used_ratio")
        return {sample.labels["what"]: sample.value for sample in family.samples}

    assert used() == {"peers": 0.0, "label_sets": 0.0}
    fill(page, 0)
    columns = Columns(seat)
    for number in range(COLUMNS_LIMIT // 4):
        columns.use(b"%d" % number)
    assert used() == {"peers": 0.25, "label_sets": 1.0}
    columns.leave(0)
    columns.give_back()
    assert 0.0 < used()["peers"] < 0.25, "it is what is held now"
