"""Which gateway the benchmark measures: an interpreter of its own finds small packages in its own site-packages.

They say of themselves what the file `form` beside them says, which is no source: two builds of the same sources differ.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from bench import build
from bench.build import ANOTHER, NOT_INSTALLED, Build
from bench.processes import Broken

MAIN = """
import pathlib, sys
here = pathlib.Path(__file__).parent
print("headrace 1.0", f"({(here / 'form').read_text()})" if sys.argv[1:] == ["--version"] else here)
"""
FILES = {
    "gateway/__init__.py": "",
    "gateway/__main__.py": MAIN,
    "gateway/proxy.py": "x = 1\n",
    "gateway/routing/__init__.py": "",
    "protocols/__init__.py": "",
    "protocols/sse.py": "y = 2\n",
}


def put(folder: Path, form: str) -> Path:
    """The packages in *folder*; *form* is what they say of themselves."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "gateway" / "form").write_text(form)
    return folder


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with an interpreter and nothing in it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    return folder


@pytest.fixture
def python(prefix: Path) -> str:
    return str(prefix / "bin" / "python")


@pytest.fixture
def site(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its site-packages, empty; nothing in the environment leads elsewhere."""
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        monkeypatch.delenv(name, raising=False)
    folder = Path(sysconfig.get_path("purelib", "venv", {"base": str(prefix)}))
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return put(tmp_path / "checkout", "plain Python")


def started(found: Build, checkout: Path) -> Path:
    """The folder of the gateway that really runs."""
    command = found.command("serve", more=("-W", "error"))
    said = subprocess.run(command, cwd=checkout, env=build.environment(), capture_output=True, text=True, check=True)
    return Path(said.stdout.split()[-1]).parent


@pytest.mark.parametrize("form", ["compiled", "plain Python"])
def test_the_installed_one_is_measured_where_its_sources_are_the_checkouts(
    site: Path, checkout: Path, python: str, form: str
) -> None:
    put(site, form)
    found = build.find(checkout, python)
    assert str(found) == f"installed, {form}"
    assert started(found, checkout) == site


def test_the_checkout_is_measured_where_nothing_is_installed(site: Path, checkout: Path, python: str) -> None:
    found = build.find(checkout, python)
    assert str(found) == f"this checkout, plain Python ({NOT_INSTALLED})"
    assert started(found, checkout) == checkout


@pytest.mark.parametrize("name", ["gateway/proxy.py", "gateway/routing/new.py", "protocols/sse.py", "protocols/new.py"])
@pytest.mark.parametrize("where", ["the checkout", "site-packages"])
def test_the_checkout_is_measured_where_a_source_differs_or_only_one_of_them_has_it(
    site: Path, checkout: Path, python: str, name: str, where: str
) -> None:
    put(site, "compiled")
    (checkout if where == "the checkout" else site).joinpath(name).write_text("z = 3\n")
    found = build.find(checkout, python)
    assert str(found) == f"this checkout, plain Python ({ANOTHER})"
    assert started(found, checkout) == checkout


def test_half_an_installation_is_none(site: Path, checkout: Path, python: str) -> None:
    put(site, "compiled")
    shutil.rmtree(site / "protocols")
    assert str(build.find(checkout, python)) == f"this checkout, plain Python ({NOT_INSTALLED})"


def test_an_editable_install_is_the_checkout_and_nothing_is_amiss(site: Path, checkout: Path, python: str) -> None:
    (site / "headrace.pth").write_text(f"{checkout}\n")
    found = build.find(checkout, python)
    assert str(found) == "this checkout, plain Python"
    assert started(found, checkout) == checkout


@pytest.mark.parametrize("path", ["the checkout", "."])
def test_who_sets_pythonpath_to_the_checkout_means_it(
    site: Path, checkout: Path, python: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    put(site, "compiled")
    monkeypatch.setenv("PYTHONPATH", str(checkout) if path == "the checkout" else path)
    found = build.find(checkout, python)
    assert str(found) == "this checkout, plain Python"
    assert started(found, checkout) == checkout


def test_what_is_found_elsewhere_is_not_called_installed(
    site: Path, checkout: Path, python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = put(tmp_path / "elsewhere", "compiled")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    found = build.find(checkout, python)
    assert str(found) == f"{elsewhere}, compiled"
    assert started(found, checkout) == elsewhere


def test_the_checkout_is_started_although_the_environment_hides_working_directories(
    site: Path, checkout: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(site, "compiled").joinpath("gateway/proxy.py").write_text("x = 4\n")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    found = build.find(checkout, python)
    assert str(found) == f"this checkout, plain Python ({ANOTHER})"
    assert started(found, checkout) == checkout


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("gateway/proxy.py", " (before proxy.py was changed)"),
        ("gateway/__main__.py", ""),  # is not compiled
        ("", ""),
    ],
)
def test_a_checkout_that_was_compiled_in_place_says_so_and_whether_it_was_changed_since(
    site: Path, checkout: Path, python: str, changed: str, why: str
) -> None:
    (site / "headrace.pth").write_text(f"{checkout}\n")
    put(checkout, "compiled")
    # The module's own library is old: what it was compiled to is in the other one.
    for file, made in (("gateway/proxy.cpython-311.so", 2.0e9), ("headrace__mypyc.cpython-311.so", 2.2e9)):
        (checkout / file).write_text("is not loaded here")
        os.utime(checkout / file, (made, made))
    os.utime(checkout / "gateway" / "proxy.py", (2.1e9, 2.1e9))
    if changed:
        os.utime(checkout / changed, (2.3e9, 2.3e9))
    assert str(build.find(checkout, python)) == f"this checkout, compiled in place{why}"


@pytest.mark.parametrize(("main", "told"), [("1 / 0", "ZeroDivisionError"), ("print('hello')", "hello")])
def test_a_gateway_that_does_not_say_what_it_is_voids_the_run(
    site: Path, checkout: Path, python: str, main: str, told: str
) -> None:
    (checkout / "gateway" / "__main__.py").write_text(main)
    with pytest.raises(Broken, match=told):
        build.find(checkout, python)


def test_a_gateway_of_the_one_who_measures_is_not_mixed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEN_GATEWAY__SERVER__PORT", "GATEWAY_UPSTREAMS", "HEADRACE_LEFT_ALONE"):
        monkeypatch.setenv(name, "1")
    assert build.environment() == {
        name: value for name, value in os.environ.items() if "GATEWAY" not in name and name != "PYTHONSAFEPATH"
    }
