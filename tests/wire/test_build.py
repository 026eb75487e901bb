"""What `tox` tests is what users install: the wheel, and its hot path compiled where a C compiler is."""

from __future__ import annotations

import ast
import shutil
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

import pytest

from tests.wire.process import INSTALLED, ROOT


def compiled_modules() -> list[str]:
    """As setup.py lists them."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (files,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED"
    )
    return [file.removesuffix(".py").replace("/", ".") for file in files]


@pytest.mark.skipif(not sys.flags.safe_path, reason="needs the wheel: tox -e wire. A checkout runs as it stands")
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("module", compiled_modules())
def test_the_hot_path_of_what_is_installed_is_compiled(module: str) -> None:
    assert INSTALLED
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    assert spec.origin.endswith(tuple(EXTENSION_SUFFIXES)), "HEADRACE_COMPILE=1 pip install . says why not"
