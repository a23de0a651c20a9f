"""The admin service through its Unix socket: each command has its effect once, and an audit
line."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from admin_peer import Admin, admin_of, wait_for_updates
from raw_peer import peer_of, refused
from running_server import RunningServer, make_config

from impala_actor.admin.admin_client import find_address
from impala_common.errors import (
    AddressInUseError,
    AlreadyExistsError,
    BannedError,
    CheckpointError,
    CheckpointWriteError,
    ConfigError,
    IllegalTransitionError,
    NotFoundError,
)
from impala_common.process import exit_codes, failpoints
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore

pytestmark = pytest.mark.timeout(60)


def test_socket_is_the_owners_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "run") as server:
        address = server.run.admin_address_path.read_text().strip()
        path = Path(address.removeprefix("unix:"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with admin_of(server) as admin:
            assert admin.status()["state"] == "STARTING"

    assert not path.exists()
    assert not server.run.admin_address_path.exists()
    with pytest.raises(ConfigError, match="a learner at work"):
        find_address(server.run.path, "")


def test_run_whose_path_is_too_long_for_a_socket_has_one_elsewhere(tmp_path: Path) -> None:
    with RunningServer(tmp_path / ("x" * 120)) as server, admin_of(server) as admin:
        path = Path(admin.address.removeprefix("unix:"))
        assert not path.is_relative_to(tmp_path)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert admin.status()["run_path"] == str(server.run.path)

    assert not path.parent.exists()


def test_loopback_port_and_none(tmp_path: Path) -> None:
    config = make_config(admin={"admin_address": "127.0.0.1:0"})
    with RunningServer(tmp_path / "a", config) as server, admin_of(server) as admin:
        assert admin.address.startswith("127.0.0.1:")
        assert admin.status()["address"] == server.address
        taken = make_config(admin={"admin_address": admin.address})
        with pytest.raises(AddressInUseError), RunningServer(tmp_path / "b", taken):
            pass
    config = make_config(admin={"admin_address": "none"})
    with RunningServer(tmp_path / "c", config) as server:
        assert not server.run.admin_address_path.exists()
        assert not server.run.admin_socket_path.exists()


def test_stale_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    import socket

    run = tmp_path / "run"
    run.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run / "admin.sock"))
    with RunningServer(run) as server, admin_of(server) as admin:
        assert admin.status()["state"] == "STARTING"


def test_status_and_actors_of_a_run_that_trains(training: RunningServer, admin: Admin) -> None:
    wait_for_updates(training)
    training.wait_until(lambda status: metrics.RETURN_MEAN in status)

    status, actors = admin.status(), admin.ask("ListActors")["actors"]

    assert status["state"] == "RUNNING"
    assert status["connected_actor_count"] == 1
    assert status["learner"]["policy_version"] > 0
    assert status["storage_bytes"] > 0
    assert status["device"] == "cpu"
    assert status["last_checkpoint"] == "step-000000000000"
    assert actors[0]["actor_id"] == "actor-0"
    assert actors[0]["environment_slot_count"] == 8
    assert actors[0]["accepted_unroll_count"] >= 24
    assert actors[0]["steps_per_second"] > 0
    assert actors[0]["is_connected"]


def test_pause_stops_updates_and_resume_goes_on(training: RunningServer, admin: Admin) -> None:
    """Seen to fail with a gate that is shut without waiting for the update under way."""
    answer = admin.ask("Pause")
    steps = admin.steps()

    assert answer["state"] == "PAUSED"
    training.wait_until(lambda status: status["state"] == "PAUSED")
    # Storage fills up: actors feel it, and nothing is trained meanwhile.
    training.wait_until(lambda status: status[metrics.QUEUE_FILL] == 1.0)
    assert admin.steps() == steps
    with pytest.raises(IllegalTransitionError, match=r"pause is .* RUNNING.*is PAUSED"):
        admin.ask("Pause")
    assert admin.ask("Resume")["state"] == "RUNNING"
    wait_for_updates(training)
    assert admin.steps() > steps
    with pytest.raises(IllegalTransitionError, match=r"resume is .* PAUSED.*is RUNNING"):
        admin.ask("Resume")


def test_stop_while_paused_ends_in_order(training: RunningServer, admin: Admin) -> None:
    admin.ask("Pause")
    steps = admin.steps()

    training.stop()

    assert training.checkpoint().state["counters"]["trained_steps"] == steps


def test_checkpoint_is_durable_when_answered(training: RunningServer, admin: Admin) -> None:
    admin.ask("Pause")
    saved = admin.ask("SaveCheckpoint", name="good")
    again = admin.ask("SaveCheckpoint")
    unchanged = admin.ask("SaveCheckpoint")

    store = CheckpointStore(training.run.checkpoints_path)
    loaded = store.load("good")
    assert loaded.step == saved["checkpoint"]["trained_steps"] == admin.steps()
    assert saved["checkpoint"]["is_kept"]
    assert saved["is_new"]
    assert again["is_new"]
    assert not unchanged["is_new"]
    assert unchanged["checkpoint"]["name"] == again["checkpoint"]["name"]
    names = {one["name"] for one in admin.ask("ListCheckpoints")["checkpoints"]}
    assert names == {"good", "step-000000000000", again["checkpoint"]["name"]}
    with pytest.raises(AlreadyExistsError, match="'good'"):
        admin.ask("SaveCheckpoint", name="good")


def test_named_checkpoint_outlives_retention(training: RunningServer, admin: Admin) -> None:
    admin.ask("SaveCheckpoint", name="first")
    for _ in range(4):
        wait_for_updates(training, 1)
        admin.ask("SaveCheckpoint")

    store = CheckpointStore(training.run.checkpoints_path)
    assert len(store.names()) == training.config.checkpoint.keep_checkpoints
    assert store.load("first").tensors["weights"]


def test_checkpoint_on_a_disk_that_refuses_leaves_training_alone(
    training: RunningServer, admin: Admin
) -> None:
    with (
        failpoints.armed("checkpoint.mid_write=raise:oserror"),
        pytest.raises(CheckpointWriteError, match="no space left"),
    ):
        admin.ask("SaveCheckpoint", name="good")

    wait_for_updates(training)
    assert admin.ask("SaveCheckpoint", name="good")["is_new"]


def test_rollback_restores_exactly_and_the_version_goes_up(
    training: RunningServer, admin: Admin
) -> None:
    """Seen to fail without setting later checkpoints aside: resume went on from the later one."""
    saved = admin.ask("SaveCheckpoint", name="good")["checkpoint"]
    wait_for_updates(training)
    admin.ask("SaveCheckpoint")
    admin.ask("Pause")
    before = admin.status()["learner"]

    answer = admin.ask("Rollback", name="good")

    after, store = admin.status()["learner"], CheckpointStore(training.run.checkpoints_path)
    good, now = store.load("good"), store.load(answer["saved_as"])
    assert answer["trained_steps_before"] == before["trained_steps"]
    assert after["trained_steps"] == saved["trained_steps"] == now.step
    assert after["policy_version"] == before["policy_version"] + 1
    for group in ("weights", "optimizer", "rng"):
        assert good.tensors[group].keys() == now.tensors[group].keys()
        for name, array in good.tensors[group].items():
            np.testing.assert_array_equal(array, now.tensors[group][name])
    assert store.load_newest().name == answer["saved_as"]
    assert any(name.startswith("rolled-back-step-") for name in store.all_names())
    admin.ask("Resume")
    wait_for_updates(training)


def test_rollback_to_what_cannot_be_used_changes_nothing(
    training: RunningServer, admin: Admin
) -> None:
    admin.ask("Pause")
    admin.ask("SaveCheckpoint", name="torn")
    path = training.run.checkpoints_path / "torn" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    before = admin.status()["learner"]

    with pytest.raises(CheckpointError, match="sha256"):
        admin.ask("Rollback", name="torn")

    assert admin.status()["learner"] == before


def test_parameter_holds_from_the_next_update_and_survives_a_resume(tmp_path: Path) -> None:
    """Seen to fail without parameters in what a checkpoint restores."""
    config = make_config(optimizer={"learning_rate_schedule": "constant"})
    with RunningServer(tmp_path / "run", config) as server, admin_of(server) as admin:
        server.run_actor("CartPole-v1")
        server.wait_until(lambda status: status.get(metrics.UPDATES, 0) >= 3)
        answer = admin.ask("SetParameter", name="learning_rate", value="0.00025")
        admin.ask("SetParameter", name="max_policy_lag", value="50")
        wait_for_updates(server)
        server.wait_until(lambda status: status[metrics.LEARNING_RATE] == 0.00025)
        server.stop()
        lines = server.metrics()

    assert (answer["value_before"], answer["parameter"]["value"]) == ("0.001", "0.00025")
    recorded = [line for line in lines if "parameter/learning_rate" in line]
    assert [line["parameter/learning_rate"] for line in recorded] == [0.00025]
    assert recorded[0][metrics.STEPS] >= answer["trained_steps"]
    with RunningServer(tmp_path / "run", config) as server, admin_of(server) as admin:
        server.wait_until(lambda status: status["state"] == "RUNNING")
        values = {one["name"]: one["value"] for one in admin.ask("ListParameters")["parameters"]}
        assert (values["learning_rate"], values["max_policy_lag"]) == ("0.00025", "50")
        server.run_actor("CartPole-v1")
        server.wait_until(lambda status: status[metrics.LEARNING_RATE] == 0.00025)


def test_setting_changed_on_the_command_line_wins_over_a_parameter_set_before(
    tmp_path: Path,
) -> None:
    with RunningServer(tmp_path / "run") as server, admin_of(server) as admin:
        with peer_of(server) as peer:
            peer.register()
        admin.ask("SetParameter", name="entropy_cost", value="0.5")
        admin.ask("SaveCheckpoint", name="x")
    changed = make_config(loss={"entropy_cost": 0.02})
    with RunningServer(tmp_path / "run", changed) as server, admin_of(server) as admin:
        server.wait_until(lambda status: status["state"] == "RUNNING")
        values = {one["name"]: one["value"] for one in admin.ask("ListParameters")["parameters"]}
        assert values["entropy_cost"] == "0.02"


def test_evicted_actor_comes_back_and_a_banned_one_does_not(
    server: RunningServer, admin: Admin
) -> None:
    """Seen to fail with streams that do not watch for the end of their session."""
    with peer_of(server, "naughty") as peer:
        peer.register()
        stream = peer.push().hello()
        stream.offer(peer.message())
        assert admin.ask("EvictActor", actor_id="naughty", text="too slow")["was_connected"]
        assert "sent away by an administrator: too slow" in str(stream.end())
        peer.register()
        stream = peer.push().hello()
        stream.offer(peer.message())

        admin.ask("EvictActor", actor_id="naughty", is_ban=True)

        assert "banned by an administrator" in str(stream.end())
        import grpc

        with refused(grpc.StatusCode.PERMISSION_DENIED, "BANNED", "banned actor naughty"):
            peer.register()
        assert admin.ask("ListActors")["banned_actor_ids"] == ["naughty"]
        assert admin.status()["banned_actor_count"] == 1
        admin.ask("UnbanActor", actor_id="naughty")
        peer.register()
    with pytest.raises(NotFoundError, match="not banned"):
        admin.ask("UnbanActor", actor_id="naughty")


def test_actor_that_is_banned_ends_and_says_so(training: RunningServer, admin: Admin) -> None:
    actor = training._actors[0]

    admin.ask("EvictActor", actor_id="actor-0", is_ban=True)
    actor.join()

    assert isinstance(actor.error, BannedError)
    assert exit_codes.exit_code_of(actor.error) == exit_codes.NO_PERMISSION
    actor.error = None  # expected: the harness would fail the test for it


def test_drain_trains_on_what_is_there_and_stays(training: RunningServer, admin: Admin) -> None:
    answer = admin.ask("Drain")

    status = admin.status()
    assert answer["state"] == status["state"] == "DRAINING"
    assert status["metrics"][metrics.QUEUE_FILL] < 1.0
    store = CheckpointStore(training.run.checkpoints_path)
    assert store.load(answer["checkpoint"]).step == status["learner"]["trained_steps"]
    with pytest.raises(IllegalTransitionError, match="the learner is DRAINING"):
        admin.ask("Resume")
    admin.ask("Shutdown")
    status = training.wait_until(lambda status: status["state"] == "STOPPED")
    assert status["reason"] == "stopping"


def test_shutdown_ends_as_sigterm_does(training: RunningServer, admin: Admin) -> None:
    admin.ask("Shutdown")

    training.wait_until(lambda status: status["state"] == "STOPPED")
    assert training.checkpoint().step > 0


def test_profile_is_a_trace_of_updates(training: RunningServer, admin: Admin) -> None:
    import gzip

    answer = admin.ask("Profile", update_count=2)

    path = Path(answer["path"])
    assert path.parent == training.run.profiles_path
    trace = json.loads(gzip.decompress(path.read_bytes()))
    names = {event.get("name", "") for event in trace["traceEvents"]}
    assert any("backward" in name.lower() for name in names)
    wait_for_updates(training)


def test_parameter_set_while_paused_after_a_checkpoint_survives(
    training: RunningServer, admin: Admin
) -> None:
    """Seen to be lost: the last save found nothing newer than the version of the weights."""
    admin.ask("Pause")
    admin.ask("SaveCheckpoint")
    admin.ask("SetParameter", name="learning_rate", value="0.000123")

    training.stop()

    state = training.checkpoint().state
    assert "0.000123" in str(state["parameters"])
