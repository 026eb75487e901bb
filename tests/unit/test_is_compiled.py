"""What the gateway says of itself: compiled, or plain Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import cli, compiled, proxy
from gateway.compiled import is_compiled

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["msgspec._core", "httptools.parser.parser"])
def test_a_module_out_of_a_shared_library_is_compiled(module: str) -> None:
    assert is_compiled(module)


@pytest.mark.parametrize("module", ["gateway.compiled", "json.decoder", "sys", "gateway.there_is_none"])
def test_a_source_a_part_of_the_interpreter_and_nothing_are_not_compiled(module: str) -> None:
    assert not is_compiled(module)


def test_the_gateway_is_asked_by_a_module_that_runs_here_and_is_compiled_where_any_is() -> None:
    assert proxy.__name__ == compiled.PROXY
    assert is_compiled() is (Path(proxy.__file__).suffix == ".so")
    assert f'"{compiled.PROXY.replace(".", "/")}.py"' in (ROOT / "setup.py").read_text()


@pytest.mark.parametrize(("answer", "form"), [(True, "compiled"), (False, "plain Python")])
def test_the_version_tells_the_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: bool, form: str
) -> None:
    monkeypatch.setattr(cli, "is_compiled", lambda: answer)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.endswith(f" ({form})\n")
