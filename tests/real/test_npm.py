"""The vendors' JavaScript clients, unmodified, through the gateway to llama.cpp: a second, independent reader of
everything. The cases are in js/, one function each.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.real.llama_server import LlamaServer
from tests.wire.client import KEY
from tests.wire.process import Gateway, wait_until

SOURCE = Path(__file__).with_name("js")
CASES = {
    "openai": ["chat", "stream", "tools", "form", "embeddings", "models", "responses", "errors"],
    "anthropic": ["chat", "stream", "tools", "errors"],
    "ollama": ["chat", "stream", "tools", "form", "embeddings", "models", "errors"],
}
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
#: What npm says where it cannot reach a registry.
UNREACHABLE = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH)\b")

pytestmark = pytest.mark.timeout(300)  # packages are fetched


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of js/ with its packages, as the lock file names them."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on this machine")
    folder = tmp_path_factory.mktemp("npm") / "js"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"npm reaches no registry: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder


def command(client: str, case: str, address: str) -> list[str]:
    return ["node", "run.mjs", client, case, address, KEY]


@pytest.mark.parametrize(("client", "case"), [(client, case) for client, cases in CASES.items() for case in cases])
def test_a_client_is_served(folder: Path, address: str, client: str, case: str) -> None:
    done = subprocess.run(
        command(client, case, address), cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("client", PATHS)
def test_a_client_that_aborts_stops_the_server(
    folder: Path, address: str, client: str, server: LlamaServer, gateway: Gateway
) -> None:
    before = len(gateway.calls(ending="CD"))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command(client, "abort", address), cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        try:
            if said:
                wait_until(lambda: server.busy_slots() == 0, "the server goes on generating")
                assert gateway.wait_call(before + 1, ending="CD")["path"] == PATHS[client]
        finally:
            _, errors = process.communicate(timeout=30)
    assert (said, process.returncode) == ("left\n", 0), errors


def test_every_case_is_run() -> None:
    for client, cases in CASES.items():
        written = re.findall(r"^    async (\w+)\(\) \{$", (SOURCE / f"{client}.mjs").read_text(), re.MULTILINE)
        assert written == [*cases, "abort"]
