"""The Prometheus endpoint: scraped over HTTP while a run trains."""

from __future__ import annotations

import dataclasses
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from raw_peer import Peer, peer_of
from running_server import TINY, RunningServer, make_config

from impala_common.config import EvaluationConfig
from impala_common.errors import AddressInUseError
from impala_common.run import metrics
from impala_common.run.metrics import BOTTLENECK_PARTS
from impala_rl.v1 import header_pb2, learner_pb2
from impala_server.front_end.monitoring.prometheus_series import SERIES, exported_names
from impala_server.front_end.monitoring.rpc_metrics import RPC_NAMES

pytestmark = pytest.mark.timeout(60)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
CONFIG = make_config(checkpoint={"prometheus_port": -1, "log_interval_s": 0.1})
EVALUATED = dataclasses.replace(
    CONFIG, evaluation=EvaluationConfig(eval_interval_steps=1000, eval_interval_episodes=20)
)
EVALUATION_NAMES = {
    "impala_evaluation_return",
    "impala_evaluation_return_error",
    "impala_evaluation_steps",
    "impala_evaluation_seconds",
    "impala_best_return",
    "impala_best_steps",
}


def scrape(server: RunningServer) -> Samples:
    address = server.supervisor.prometheus_address
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5.0) as response:
        text = response.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape_until(server: RunningServer, names: Collection[str]) -> Samples:
    """Scrapes until all of them are there: the front end is told about once a second."""
    deadline_s = time.monotonic() + 20.0
    while True:
        samples = scrape(server)
        missing = set(names) - {name for name, _ in samples}
        if not missing:
            return samples
        assert time.monotonic() < deadline_s, f"not exported: {missing}"
        threading.Event().wait(0.05)


def value_of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def rpc_value(samples: Samples, name: str, method: str, kind: str = "unary", **more: str) -> float:
    service = "impala_rl.v1.LearnerService"
    labels = {"grpc_service": service, "grpc_method": method, "grpc_type": kind, **more}
    return value_of(samples, name, **labels)


def test_scrape_of_a_run_that_trains_has_every_name(tmp_path: Path) -> None:
    """Seen to fail with a front end that is not told the learner's status."""
    with RunningServer(tmp_path / "run", EVALUATED) as server:
        actor = server.run_actor(TINY + "Counting-v0")
        server.run_evaluator(TINY + "Counting-v0")
        server.wait_until(
            lambda status: (
                status.get(metrics.UNROLLS_ACCEPTED, 0) > 0
                and status.get(metrics.ACTORS_CONNECTED) == 1
                and status.get("bottleneck")
            )
        )
        samples = scrape_until(server, exported_names())
        while not (
            value_of(samples, "impala_unrolls_total", outcome="accepted")
            and sum(value_of(samples, "impala_bottleneck", part=part) for part in BOTTLENECK_PARTS)
        ):
            samples = scrape(server)  # told a second later; the test's timeout ends this
        actor.stop()

    found = {name for name, _ in samples}
    assert value_of(samples, "impala_trained_steps_total") > 0
    assert value_of(samples, "impala_unrolls_total", outcome="accepted") > 0
    parts = ("unrolls_trained_total", "unrolls_dropped_total", "unrolls_queued")
    assert value_of(samples, "impala_unrolls_total", outcome="accepted") == sum(
        value_of(samples, f"impala_{part}") for part in parts
    ), "accepted is what was trained, dropped and is queued, at all times"
    assert value_of(samples, "impala_actors_connected") == 1
    assert value_of(samples, "impala_state", state="RUNNING") == 1
    assert sum(value_of(samples, "impala_bottleneck", part=part) for part in BOTTLENECK_PARTS) == 1
    assert value_of(samples, "impala_insecure_bind") == 0
    assert value_of(samples, "impala_draining") == 0
    assert 0 <= value_of(samples, "impala_status_age_seconds") < 10
    assert {name.removesuffix("_seconds") for name in RPC_NAMES} <= {
        name.removesuffix("_seconds_count") for name in found
    }
    assert rpc_value(samples, "grpc_server_started_total", "PushUnrolls", "bidi_stream") == 1
    assert rpc_value(samples, "grpc_server_msg_received_total", "PushUnrolls", "bidi_stream") > 2
    assert rpc_value(samples, "grpc_server_handling_seconds_count", "Register") == 1


def test_scraped_evaluation_is_that_of_the_metrics_line_at_its_steps(tmp_path: Path) -> None:
    """Planted: the modes swapped; the newest steps in place of the evaluated ones."""

    def value(name: str, **labels: str) -> float:
        return value_of(samples, f"impala_{name}", **labels)

    with RunningServer(tmp_path / "run", EVALUATED) as server:
        server.run_actor(TINY + "ContextualBandit-v0")
        server.run_evaluator(TINY + "ContextualBandit-v0")
        samples = scrape_until(server, EVALUATION_NAMES)
        # Else a mistake between the two would not be seen; the test's timeout ends this.
        while value("evaluation_return", mode="sampled") == value(
            "evaluation_return", mode="greedy"
        ):
            threading.Event().wait(0.05)
            samples = scrape(server)
        server.stop()
        evaluated = [line for line in server.metrics() if metrics.EVALUATION_RETURN_MEAN in line]

    (line,) = (line for line in evaluated if line[metrics.STEPS] == value("evaluation_steps"))
    assert value("evaluation_return", mode="sampled") == line[metrics.EVALUATION_RETURN_MEAN]
    assert value("evaluation_return", mode="greedy") == line[metrics.GREEDY_RETURN_MEAN]
    assert value("evaluation_return_error", mode="sampled") == line[metrics.EVALUATION_ERROR]
    assert value("evaluation_return_error", mode="greedy") == line[metrics.GREEDY_ERROR]
    assert value("evaluation_seconds") == line[metrics.EVALUATION_S] > 0
    so_far = evaluated[: evaluated.index(line) + 1]
    best = max(so_far, key=lambda line: line[metrics.EVALUATION_RETURN_MEAN])  # the first of equals
    assert value("best_return") == best[metrics.EVALUATION_RETURN_MEAN]
    assert value("best_steps") == best[metrics.STEPS]


def test_rpcs_are_counted_by_their_code(tmp_path: Path) -> None:
    """Seen to fail with code() taken for OK when the handler aborted."""
    with RunningServer(tmp_path / "run", CONFIG) as server, peer_of(server) as peer:
        peer.register()
        for _ in range(3):
            with pytest.raises(grpc.RpcError):
                peer.register(protocol_version=99)
        stream = peer.push().hello()
        stream.offer(peer.message(8))
        stream.half_close()
        assert list(stream.call) == []
        with pytest.raises(grpc.RpcError):
            peer.channel.unary_unary("/impala_rl.v1.LearnerService/Nothing" + "x" * 99)(b"")
        samples = scrape(server)

    handled = "grpc_server_handled_total"
    assert rpc_value(samples, handled, "Register", grpc_code="OK") == 1
    assert rpc_value(samples, handled, "Register", grpc_code="FAILED_PRECONDITION") == 3
    assert rpc_value(samples, handled, "PushUnrolls", "bidi_stream", grpc_code="OK") == 1
    assert rpc_value(samples, "grpc_server_msg_received_total", "PushUnrolls", "bidi_stream") == 2
    assert rpc_value(samples, "grpc_server_msg_sent_total", "PushUnrolls", "bidi_stream") == 1
    unknown = {"grpc_service": "unknown", "grpc_method": "unknown", "grpc_type": "unknown"}
    assert value_of(samples, handled, grpc_code="UNIMPLEMENTED", **unknown) == 1


def test_ten_thousand_actor_ids_make_no_series(tmp_path: Path) -> None:
    """Seen to fail with a label that differs from call to call."""
    with RunningServer(tmp_path / "run", CONFIG) as server, peer_of(server) as peer:
        peer.register()
        before = scrape_until(server, {"impala_updates_per_second"}).keys()
        _ask_as_many(peer, 10_000)
        after = scrape(server)

    assert after.keys() - before == {
        key for key in after if dict(key[1]).get("grpc_method") == "GetConfig"
    }
    started = rpc_value(after, "grpc_server_started_total", "GetConfig")
    assert started == 10_000
    assert len(after) < 200


def _ask_as_many(peer: Peer, number: int) -> None:
    """Calls under `number` names, some of them hostile."""
    calls = []
    for index in range(number):
        actor = header_pb2.ActorHeader(actor_id=f'a{index}"}}\n# {index}', actor_run_id=index)
        request = learner_pb2.GetConfigRequest(actor=actor, protocol_version=1)
        calls.append(peer.stub.GetConfig.future(request, timeout=30.0))
        if len(calls) == 50:
            for call in calls:
                call.result()
            calls.clear()


def test_methods_that_nobody_has_make_no_series_even_without_a_token(
    tmp_path: Path,
) -> None:
    """Seen to fail with names as they came, and where the doorkeeper asked for a token."""
    token = tmp_path / "token"
    token.write_text("a5" * 32 + "\n")
    token.chmod(0o600)
    config = make_config(
        checkpoint={"prometheus_port": -1}, security={"actor_token_file": str(token)}
    )
    codes: Counter[str] = Counter()
    with (
        RunningServer(tmp_path / "run", config) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for index in range(100):
            for service in ("impala_rl.v1.LearnerService", "grpc.channelz.v1.Channelz", "x.Y"):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(f"/{service}/Nothing{index}")(b"", timeout=5.0)
                codes[caught.value.code().name] += 1
        samples = scrape(server)

    assert not [key for key in samples if "Nothing" in str(key)]
    assert codes == {"UNIMPLEMENTED": 300}
    unknown = {"grpc_service": "unknown", "grpc_method": "unknown", "grpc_type": "unknown"}
    for code, number in codes.items():
        handled = value_of(samples, "grpc_server_handled_total", grpc_code=code, **unknown)
        assert handled == number


def test_taken_port_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    """Seen to hang with an endpoint whose thread outlives the error."""
    with RunningServer(tmp_path / "one", CONFIG) as server:
        assert server.supervisor.prometheus_address is not None
        port = int(server.supervisor.prometheus_address.rpartition(":")[2])
        taken = make_config(checkpoint={"prometheus_port": port})
        with (
            pytest.raises(AddressInUseError, match=f"127.0.0.1:{port}.*--prometheus-port"),
            RunningServer(tmp_path / "two", taken),
        ):
            pass


def test_without_the_setting_there_is_no_endpoint(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "run") as server:
        assert server.supervisor.prometheus_address is None


def test_series_have_units_help_and_one_label_at_most() -> None:
    for series in SERIES:
        assert series.name.startswith("impala_")
        assert series.help.endswith(".")
        assert bool(series.label) == bool(series.value)
    by_name = {series.name: series.label for series in SERIES}
    assert all(by_name[series.name] == series.label for series in SERIES)
    more = {"last_checkpoint_age_s", "checkpoint_failures", "evaluation_steps"}
    known = {*metrics.ALL_METRICS, *more}
    assert {series.metric for series in SERIES} <= known
    assert len({(series.name, series.value) for series in SERIES}) == len(SERIES)
