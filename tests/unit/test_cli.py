"""The command `headrace`: its subcommands, and how it is started."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from gateway import __version__
from gateway.cli import check, key, main, serve


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"headrace {__version__} (")


@pytest.mark.parametrize("argv", [[], ["sreve"], ["check", "--prnt"], ["key"], ["key", "hash", "hunter2"]])
def test_a_usage_error_exits_with_2(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: headrace" in capsys.readouterr().err


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^ +{name} ", out, re.MULTILINE) for name in ("serve", "check", "key"))


@pytest.mark.parametrize(
    ("module", "argv"), [(serve, ["serve"]), (check, ["check"]), (key, ["key", "new"])], ids=["serve", "check", "key"]
)
def test_a_subcommand_runs_its_module_and_gives_its_status(
    monkeypatch: pytest.MonkeyPatch, module: object, argv: list[str]
) -> None:
    monkeypatch.setattr(module, "run", lambda arguments: 7)
    assert main(argv) == 7


def test_nothing_is_collected_while_the_command_is_loaded() -> None:
    """That would be a sixth of the time that a gateway takes to start."""
    script = """if True:
        import gc, sys
        seen = []
        gc.callbacks.append(lambda phase, info: seen.append("gateway.config.schema" in sys.modules))
        import gateway.cli
        assert gc.isenabled() and not any(seen), seen
        gc.collect()
        assert any(seen)
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
