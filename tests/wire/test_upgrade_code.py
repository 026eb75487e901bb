"""SIGUSR2: the code that stands there now is tried, and runs only if it can take everything over."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from gateway.channel import LANGUAGE
from gateway.page import LAYOUT
from tests.wire.accepted import Gate
from tests.wire.client import chat_request
from tests.wire.process import INSTALLED, ROOT, wait_until
from tests.wire.stage import Stage, backend, configuration, merge
from tests.wire.test_workers import streams
from tests.wire.upgrading import (
    CHAT,
    REFUSED,
    UPGRADED,
    busy,
    health,
    lines,
    upgrade,
    wait_workers,
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code, to be changed."""
    for package in ("gateway", "protocols"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return tmp_path


def edit(copy: Path, module: str, old: str, new: str) -> None:
    file = copy / module
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {module}"
    file.write_text(text.replace(old, new))


def test_the_new_code_is_what_stands_there_now(stage: Stage, copy: Path) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream())), root=copy)
    before = health(gateway)["version"]
    edit(copy, "gateway/__init__.py", f'"{before}"', '"77.0"')
    edit(
        copy, "gateway/config/schema.py", "    backlog: Count = 2048", "    backlog: Count = 2048\n    novel: Count = 1"
    )
    verdict = upgrade(gateway, merge(gateway.config, {"server": {"novel": 3}}))
    assert verdict["msg"] == UPGRADED and verdict["version"] == "77.0", verdict
    assert health(gateway)["version"] == "77.0"
    assert gateway.metrics().value("gateway_build_info", version="77.0") == 1
    said = lines(gateway, "upgrading")
    assert [(line["former"], line["version"]) for line in said] == [(before, "77.0")]


def test_a_trial_that_hangs_is_given_up(stage: Stage, copy: Path) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream())), root=copy)
    module = copy / "gateway/__main__.py"
    sound = module.read_text()
    module.write_text("import time\n\ntime.sleep(3600)\n")
    verdict = upgrade(gateway)
    assert verdict["msg"] == REFUSED and "no verdict within 30 s" in verdict["reason"], verdict
    wait_workers(gateway, 1)
    module.write_text(sound)
    assert upgrade(gateway)["generation"] == 2


def test_a_page_of_another_layout_begins_anew_and_that_is_said(stage: Stage, copy: Path) -> None:
    gate = Gate()
    gateway = stage.gateway(busy(stage, gate), root=copy)
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    (stream,) = streams(stage, gateway, 1, model="s")
    edit(copy, "gateway/page.py", f"LAYOUT: Final = {LAYOUT}", f"LAYOUT: Final = {LAYOUT + 1}")
    assert upgrade(gateway)["msg"] == UPGRADED
    assert lines(gateway, "what was counted begins anew")
    assert gateway.metrics().value("gateway_requests_total", path=CHAT) == 0
    gate.open()
    assert stream.finish().complete
    stream.close()
    wait_workers(gateway, 1)
    assert upgrade(gateway)["generation"] == 3


def test_a_state_that_the_new_code_does_not_know_is_left_alone(stage: Stage, copy: Path) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream())), root=copy)
    edit(copy, "gateway/channel.py", f"LANGUAGE: Final = {LANGUAGE}", f"LANGUAGE: Final = {LANGUAGE + 1}")
    verdict = upgrade(gateway)
    said = f"speaks version {LANGUAGE} and the new one {LANGUAGE + 1}"
    assert verdict["msg"] == REFUSED and said in verdict["reason"], verdict
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_code_that_cannot_be_imported_is_refused_with_its_reason(stage: Stage, copy: Path) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream())), root=copy)
    workers = gateway.workers
    edit(copy, "gateway/worker.py", "import asyncio\n", "import asyncio\nimport nowhere_to_be_found\n")
    verdict = upgrade(gateway)
    assert verdict["msg"] == REFUSED and "nowhere_to_be_found" in verdict["reason"], verdict
    wait_workers(gateway, 1)  # the trials have ended
    assert gateway.workers == workers and health(gateway)["generation"] == 1


def test_an_interpreter_that_is_gone_is_refused_with_its_reason(stage: Stage, tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    paths = os.pathsep.join([*(path for path in sys.path if path.endswith("-packages")), str(ROOT)])
    gateway = stage.gateway(
        configuration(backend(stage.upstream())),
        command=(str(link), "-m", "gateway"),
        env={"PYTHONPATH": paths},
    )
    link.unlink()
    verdict = upgrade(gateway)
    assert verdict["msg"] == REFUSED and verdict["reason"].startswith(f"{link} cannot be run: No such file"), verdict
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    link.symlink_to(sys.executable)
    assert upgrade(gateway)["msg"] == UPGRADED


def test_the_installed_script_upgrades_too(stage: Stage) -> None:
    script = Path(sys.executable).with_name("headrace")
    paths = {} if INSTALLED else {"PYTHONPATH": str(ROOT)}
    gateway = stage.gateway(configuration(backend(stage.upstream())), command=(str(script),), env=paths)
    assert upgrade(gateway)["generation"] == 2


def test_workers_that_cannot_start_leave_the_old_ones_serving_until_they_can(stage: Stage, copy: Path) -> None:
    gate = Gate()
    gateway = stage.gateway(busy(stage, gate), root=copy)
    workers = gateway.workers
    (stream,) = streams(stage, gateway, 1, model="s")
    sound = (copy / "gateway/worker.py").read_text()
    edit(copy, "gateway/worker.py", "        gate.open()\n", '        raise OSError("no worker today")\n')
    gateway.process.send_signal(signal.SIGUSR2)
    # More often than what ends a gateway that never served.
    failed = lambda: len(lines(gateway, "a worker cannot start")) > 4  # noqa: E731
    wait_until(failed, "workers fail", timeout=40.0)
    assert lines(gateway, "a worker cannot start")[0]["reason"] == "no worker today"
    assert workers[0] in gateway.workers and health(gateway)["generation"] == 1
    (copy / "gateway/worker.py").write_text(sound)
    assert upgrade(gateway)["generation"] == 3
    gate.open()
    assert stream.finish().complete
