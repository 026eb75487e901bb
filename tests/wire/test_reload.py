"""SIGHUP: another configuration is served by every worker, and nothing that runs is harmed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.wire import answers, tls
from tests.wire.accepted import Gate
from tests.wire.client import KEY, Incomplete, chat_request
from tests.wire.process import Configuration, Gateway, Metrics, to_toml, wait_until
from tests.wire.stage import Stage, backend, configuration, merge
from tests.wire.test_workers import GONE, held_stream, owner, streams

CHAT = "/v1/chat/completions"
VERDICTS = ('"msg":"reloaded"', '"msg":"the configuration is refused')


def reload(gateway: Gateway, config: Configuration | str) -> dict[str, Any]:
    """Write *config*, send SIGHUP, and return what the log says of it within a second."""
    said = Path(gateway.folder / "stdout")
    seen = said.stat().st_size
    text = config if isinstance(config, str) else to_toml(config)
    # In place at once: a file that is half written is not what this tests.
    new = gateway.folder / "new"
    new.write_text(text)
    os.replace(new, gateway.folder / "gateway.toml")
    gateway.process.send_signal(signal.SIGHUP)

    def verdict() -> Any:
        with said.open() as file:
            file.seek(seen)
            lines = [line for line in file if any(word in line for word in VERDICTS) and line.endswith("\n")]
        return json.loads(lines[0]) if lines else None

    return dict(wait_until(verdict, lambda: f"a verdict\n{gateway.stdout[-2000:]}", timeout=5.0))


def test_a_bad_file_is_reported_with_file_key_and_reason_and_every_fault_at_once(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    file = gateway.folder / "gateway.toml"

    def reason(bad: Configuration | str) -> str:
        verdict = reload(gateway, bad)
        assert verdict["msg"] == "the configuration is refused, the former one stays", verdict
        return str(verdict["reason"])

    assert reason(to_toml(config) + "nonsense = [") == f"{file}: end of document: Invalid value, expected TOML"
    many = {**config, "backends": [backend("http://a:1", name=f"b{number}", balnce="p2c") for number in range(8)]}
    assert reason(many).splitlines() == [
        f'{file}: backends[b{number}].balnce: is not a key, did you mean "balance"?' for number in range(8)
    ]
    own, other = tls.LISTENER["cert"], str(tls.CERTS / "client.key")
    assert reason(merge(config, {"server": {"tls": {"cert": own, "key": other}}})) == (
        f"{file}: server.tls.key: the file {other} is not the key of {own}, expected the one that it was made with"
    )
    assert reason({**config, "backends": [backend("mock://a?nix=1", protocol="mock")]}) == (
        f"{file}: backends[alpha].endpoints[0]: cannot be played: 'nix' is no option of a mock address"
    )
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_files_are_watched_where_the_operator_wants_it(stage: Stage, tmp_path: Path) -> None:
    """Those that the configuration names too; a bad file is told once, and the watch goes on."""
    token = tmp_path / "token"
    token.write_text("first")
    upstream = stage.upstream()
    auth = {"type": "bearer", "token_file": str(token)}
    config = configuration(backend(upstream, auth=auth), server={"watch": "100ms"})
    gateway = stage.gateway(config)

    def token_seen() -> str | None:
        assert gateway.ask("POST", CHAT, chat_request()).status == 200
        return upstream.ledger.last.header("authorization")

    assert token_seen() == "Bearer first"
    token.write_text("second")
    wait_until(lambda: token_seen() == "Bearer second", "the new token is used")
    file = gateway.folder / "gateway.toml"
    sound = file.read_text()
    file.write_text(sound + "nonsense = [")
    wait_until(lambda: VERDICTS[1] in gateway.stdout, "the refusal")
    file.write_text(sound.replace('"100ms"', '"0s"'))
    wait_until(lambda: gateway.stdout.count(VERDICTS[0]) == 2, "the mended file is served")
    assert gateway.stdout.count(VERDICTS[1]) == 1
    token.write_text("third")
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: token_seen() == "Bearer third", "the signal is heard where nothing is watched")


def test_a_file_that_was_cut_off_does_not_serve_the_defaults(stage: Stage) -> None:
    """They are for who gives no file: an editor empties a file before it writes it."""
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    keys, backends = {"auth": config["auth"]}, {"backends": config["backends"]}
    for cut, missing in (("", "[[backends]]"), (keys, "[[backends]]"), (backends, "auth.keys")):
        verdict = reload(gateway, cut)
        assert verdict["msg"].startswith("the configuration is refused"), verdict
        assert verdict["reason"].startswith(f"{gateway.folder / 'gateway.toml'}: {missing}: no"), verdict
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_a_signal_that_others_take_for_log_rotation_kills_nobody(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream())))
    os.kill(gateway.pid, signal.SIGUSR1)
    gateway.process.send_signal(signal.SIGUSR1)
    assert reload(gateway, (gateway.folder / "gateway.toml").read_text())["changed"] == "nothing"
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_connections_to_a_peer_that_stays_are_kept(stage: Stage) -> None:
    upstream = stage.upstream()
    config = configuration(backend(upstream))
    gateway = stage.gateway(config)
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    assert reload(gateway, merge(config, {"auth": {"header": "X-Key"}}))["changed"] == "auth.header"
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    assert len(upstream.ledger.connections) == 1


def test_a_peer_that_goes_ends_its_streams_in_peace_and_takes_no_new_call(stage: Stage) -> None:
    gate = Gate()
    old, new = stage.upstream([held_stream(gate), answers.model_server]), stage.upstream()
    gateway = stage.gateway(configuration(backend(old)))
    (client,) = streams(stage, gateway, 1)
    verdict = reload(gateway, configuration(backend(new), server={"port": gateway.port}))
    assert verdict["changed"] == "backends.alpha.endpoints"
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    assert len(new.ledger.requests) == 1 and len(old.ledger.requests) == 1
    assert gateway.gauge("gateway_upstream_connections", state="busy") == 1
    gate.open()
    assert client.finish().complete
    gateway.wait_gauge(0, "gateway_upstream_connections", state="busy")


def test_a_key_that_goes_is_refused_on_connections_that_it_opened(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    client = stage.connect(gateway)
    for _ in range(3):  # the head is read by pattern, and its key is not looked up again
        client.chat()
        assert client.response().status == 200
    reload(gateway, merge(config, {"auth": {"keys": [{"name": "tester", "key": "another-key-for-tests"}]}}))
    client.chat()
    assert client.response().status == 401
    assert gateway.ask("POST", CHAT, chat_request(), key="another-key-for-tests").status == 200
    reload(gateway, config)
    assert gateway.ask("POST", CHAT, chat_request(), key=KEY).status == 200


def test_a_bad_file_changes_nothing_and_is_reported_with_file_key_and_reason(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    verdict = reload(gateway, merge(config, {"server": {"header_timeout": "soon"}}))
    assert all(part in verdict["reason"] for part in ("gateway.toml", "server.header_timeout", "duration")), verdict
    # Well formed, and not to be served: found out by trying, in no worker.
    lost = backend("https://127.0.0.1:9", tls={"ca_file": "/nonexistent/ca.pem"})
    verdict = reload(gateway, configuration(lost, server={"port": gateway.port}))
    assert "ca" in verdict["reason"], verdict
    assert gateway.ask("POST", CHAT, chat_request()).status == 200
    assert gateway.ask("GET", "/health").json()["generation"] == 1


def test_what_only_an_upgrade_changes_is_said(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    verdict = reload(gateway, merge(config, {"server": {"backlog": 77, "pre_stop": "1ms"}}))
    assert verdict["after_upgrade"] == "server.backlog"
    assert set(verdict["changed"].split(", ")) == {"server.backlog", "server.pre_stop"}


def test_models_that_a_backend_told_are_not_forgotten(stage: Stage) -> None:
    upstream = stage.upstream()
    config = configuration(backend(upstream, models="auto", models_refresh="1h"))
    gateway = stage.gateway(config)

    def listed() -> list[str]:
        return [model["id"] for model in gateway.ask("GET", "/v1/models").json()["data"]]

    models = wait_until(listed, "the models are learnt")
    upstream.answer = answers.whole(503, b"{}")
    reload(gateway, merge(config, {"server": {"pre_stop": "1ms"}}))
    assert listed() == models


def test_a_worker_that_dies_comes_back_under_the_present_configuration(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()), server={"workers": 2})
    gateway = stage.gateway(config)
    assert reload(gateway, merge(config, {"server": {"pre_stop": "1ms"}}))["generation"] == 2
    for pid in gateway.workers:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(gateway.workers) == 2 and all_answer(gateway, 2), "both are back", timeout=4.0)


def all_answer(gateway: Gateway, generation: int) -> bool:
    try:
        return all(gateway.ask("GET", "/health").json()["generation"] == generation for _ in range(10))
    except (OSError, Incomplete):
        return False


def test_a_configuration_larger_than_any_buffer_reaches_every_worker(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()), server={"workers": 2})
    gateway = stage.gateway(config)
    keys = [{"name": f"k{number}", "sha256": f"{number:064x}"} for number in range(6000)]
    keys.append({"name": "tester", "key": KEY})
    assert reload(gateway, merge(config, {"auth": {"keys": keys}}))["generation"] == 2
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_a_file_that_cannot_be_read_to_its_end_is_given_up(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()))
    gateway = stage.gateway(config)
    file = gateway.folder / "gateway.toml"
    file.unlink()
    os.mkfifo(file)
    gateway.process.send_signal(signal.SIGHUP)
    refused = "the configuration is refused, the former one stays"
    said = lambda: [line["reason"] for line in gateway.log_lines() if line["msg"] == refused]  # noqa: E731
    assert f"{file}: cannot be read (it did not end within 5 s)" in wait_until(said, "it is given up", timeout=15.0)[0]
    assert reload(gateway, merge(config, {"server": {"pre_stop": "1ms"}}))["generation"] == 2


def test_a_renewed_authority_of_an_upstream_is_taken_from_the_same_path(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    shutil.copy(tls.CERTS / "nobody.pem", file)
    config = configuration(backend(stage.upstream(tls=tls.server()), tls={"ca_file": str(file)}))
    gateway = stage.gateway(config)
    assert gateway.ask("POST", CHAT, chat_request()).status == 502
    shutil.copy(tls.CA, file)
    reload(gateway, config)
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def test_a_worker_that_does_not_take_a_configuration_over_is_named_and_replaced(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()), server={"workers": 2})
    gateway = stage.gateway(config)
    client = stage.connect(gateway)
    other = owner(gateway, client)
    stopped = next(pid for pid in gateway.workers if pid != other)
    os.kill(stopped, signal.SIGSTOP)

    def one_has_it() -> bool:
        client.request("GET", "/metrics")
        served = Metrics(client.response().body.decode()).families["gateway_config_generation"].samples
        return sorted(one.value for one in served) == [1, 2]

    (gateway.folder / "gateway.toml").write_text(to_toml(merge(config, {"server": {"pre_stop": "1ms"}})))
    for _ in range(2):  # the second waits for the first, which is not forgotten
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(one_has_it, "the other one has it")
    said = lambda: [line for line in gateway.log_lines() if line["msg"] == "reloaded"]  # noqa: E731
    wait_until(lambda: len(said()) == 2, "both are told", timeout=20.0)
    assert [(line["generation"], line["changed"]) for line in said()] == [(2, "server.pre_stop"), (3, "nothing")]
    late = [line["pid"] for line in gateway.log_lines() if line["msg"].endswith("over and is replaced")]
    assert late == [stopped]
    os.kill(stopped, signal.SIGCONT)  # it learns that it was told to leave
    wait_until(lambda: len(gateway.workers) == 2 and stopped not in gateway.workers, "it leaves")
    assert other in gateway.workers


@pytest.mark.parametrize("reloaded", [False, True])
def test_a_successor_shows_certificates_whose_files_are_gone(stage: Stage, tmp_path: Path, reloaded: bool) -> None:
    """To clients and to upstreams; it serves what the files said when the configuration was read."""
    names = ("server.pem", "server.key", "ca.pem", "client.pem", "client.key")
    cert, key, authority, own, own_key = (str(shutil.copy(tls.CERTS / name, tmp_path)) for name in names)
    upstream = stage.upstream(tls=tls.server(ask_client=True))
    fields = {"ca_file": authority, "cert": own, "key": own_key}
    listener = {"cert": cert, "key": key, "client_ca": authority}
    config = configuration(backend(upstream, tls=fields), server={"workers": 2, "tls": listener})
    gateway = stage.gateway(config)
    if reloaded:
        reload(gateway, merge(config, {"server": {"pre_stop": "1ms"}}))
    for file in (cert, key, authority, own, own_key):
        Path(file).unlink()
    former = set(gateway.workers)
    for pid in former:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(set(gateway.workers) - former) == 2, "there are others")
    wait_until(lambda: answers_calls(gateway), "a successor serves")
    assert gateway.ask("POST", CHAT, chat_request()).status == 200


def answers_calls(gateway: Gateway) -> bool:
    try:
        return gateway.ask("GET", "/health/live").status == 200
    except GONE:
        return False
