"""impala-train --thin and impala-server --policy-port: processes, faults, an ordered end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import ENV, FOR_EVER, SMALL, TRAIN, Command, steps_of, wait_for_end

from impala_common.process.exit_codes import CONFIG, OK, TEMPORARY
from impala_common.run.run_directory import RunDirectory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

_ATARI = ("--thin", "--env", "ALE/Pong-v5")


def test_train_with_thin_actors_finishes_and_is_evaluated(tmp_path: Path) -> None:
    options = ["--total-steps", "3000", "--eval-episodes", "4", "--run-dir", "run", "--json"]
    with Command(tmp_path, "impala-train", *TRAIN, *options, "--thin") as train:
        assert train.wait() == OK, train.err
        result = train.result()

    run = RunDirectory(tmp_path / "run")
    assert result["reason"] == "finished"
    assert result["steps"] >= 3000
    assert result["evaluation"]["num_episodes"] == 4
    assert "policy server at 127.0.0.1:" in train.err
    assert (run.log_path / "thin-actor-0.log").read_text().startswith("played ")
    assert not (run.log_path / "actor-0.log").exists(), "an ordinary actor was started, too"
    assert not run.policy_address_path.exists(), "nobody listens there any more"


@pytest.mark.extended
def test_train_with_thin_actors_plays_atari_in_single_frames(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    options = ["--total-steps", "500", "--eval-episodes", "0", "--run-dir", "run", "--json"]
    options += ["--num-actors", "1", "--envs-per-actor", "4", "--batch-size", "2", "--parts", "2"]
    with Command(tmp_path, "impala-train", *_ATARI, *options, "--unroll-length", "10") as train:
        assert train.wait() == OK, train.err
        assert train.result()["steps"] >= 500

    run = RunDirectory(tmp_path / "run")
    (leaf,) = json.loads(run.specs_path.read_text())["environment"]["observation_leaves"]
    assert leaf["shape"] == [4, 84, 84]
    assert "played " in (run.log_path / "thin-actor-0.log").read_text()


@pytest.mark.extended
def test_train_replaces_thin_actor_and_policy_server_that_were_killed(tmp_path: Path) -> None:
    """The policy server comes back on its port, where its client finds it and goes on."""
    run = RunDirectory(tmp_path / "run")
    options = ["--total-steps", FOR_EVER, "--run-dir", "run", "--thin"]
    with Command(tmp_path, "impala-train", *TRAIN, *options) as train:
        train.wait_until(lambda: steps_of(run) > 0, "training")
        address = run.policy_address_path.read_text()
        for module in ("impala_thin", "impala_policy_server"):
            (old,) = train.children(f"-m {module}")
            old.kill()

            def new(pid: int = old.pid, module: str = module) -> bool:
                return any(child.pid != pid for child in train.children(f"-m {module}"))

            train.wait_until(new, f"new {module}")
            before = steps_of(run)
            train.wait_until(lambda before=before: steps_of(run) > before + 2000, "more training")
        assert run.policy_address_path.read_text() == address
        with Command(tmp_path, "impala-admin", "clients", "--run", "run", "--json") as admin:
            assert admin.wait() == OK, admin.err
            (client,) = admin.result()["clients"]
            assert (client["client_id"], client["is_connected"]) == ("thin-actor-0", True)
            assert client["observation_count"] > 0
        everyone = train.children()
        train.interrupt()
        assert train.wait() == OK, train.err
        wait_for_end(everyone, 10.0)
    assert (
        '"what": "End", "outcome": "ok", "text": "SIGTERM came"'
        in run.policy_audit_path.read_text()
    )
    assert not run.policy_admin_address_path.exists()


@pytest.mark.extended
def test_train_that_is_killed_takes_policy_server_and_thin_actors_with_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    options = ["--total-steps", FOR_EVER, "--run-dir", "run", "--thin"]
    with Command(tmp_path, "impala-train", *TRAIN, *options) as train:
        train.wait_until(lambda: steps_of(run) > 0, "training")
        everyone = train.children()
        assert len(everyone) == 4, "learner, front end, policy server, thin actor"
        train.process.kill()

        wait_for_end(everyone, 45.0)


def test_server_with_policy_port_trains_a_thin_actor_and_ends_its_policy_server(
    tmp_path: Path,
) -> None:
    run = RunDirectory(tmp_path / "run")
    options = ["--env", ENV, *SMALL, "--run-dir", "run", "--total-steps", "3000"]
    with Command(tmp_path, "impala-server", *options, "--policy-port", "-1") as server:
        server.wait_until(run.policy_address_path.exists, "address of the policy server")
        address = run.policy_address_path.read_text().strip()
        everyone = server.children()
        with Command(
            tmp_path, "impala-thin-actor", "--server", address, "--env", ENV, "--slots", "8"
        ) as thin:
            assert server.wait() == OK, server.err
            assert thin.wait() == OK, thin.err
        wait_for_end(everyone, 5.0)

    assert f"policy server at {address}: impala-thin-actor --server {address}" in server.err
    assert steps_of(run) >= 3000


def test_server_whose_policy_port_is_taken_ends_at_once_and_says_so(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    options = ["--env", ENV, *SMALL, "--total-steps", FOR_EVER]
    with Command(
        tmp_path, "impala-server", *options, "--run-dir", "run", "--policy-port", "-1"
    ) as first:
        first.wait_until(run.policy_address_path.exists, "address of the policy server")
        port = run.policy_address_path.read_text().strip().rpartition(":")[2]
        with Command(
            tmp_path, "impala-server", *options, "--run-dir", "other", "--policy-port", port
        ) as second:
            assert second.wait() == TEMPORARY, second.err
        assert f"{port}" in second.err
        assert not RunDirectory(tmp_path / "other").path.exists()


@pytest.mark.parametrize(
    ("command", "options", "text"),
    [
        ("impala-train", [*_ATARI, "--atari-episodic-life"], "--atari-episodic-life .* --thin"),
        ("impala-train", [*_ATARI, "--env-wrapper", "a:B"], "env_wrapper is .*left out for ALE"),
        ("impala-train", [*_ATARI, "--env-backend", "envpool"], "--env-backend is .envpool. .*ale"),
        (
            "impala-train",
            ["--thin", "--env", ENV, "--env-backend", "async"],
            "--env-backend is .async. .*with",
        ),
        ("impala-train", ["--thin", "--env", ENV, "--env-wrapper", "a:B"], "env_wrapper is .a:B"),
        ("impala-train", ["--thin", "--env", ENV, "--num-actors", "0"], "--num-actors"),
        ("impala-train", ["--thin", "--env", ENV, "--host", "unix:/x"], "--thin .*Unix socket"),
        ("impala-server", ["--policy-port", "50051"], "--policy-port is 50051"),
        ("impala-server", ["--policy-port", "70000"], "--policy-port is 70000"),
        ("impala-server", ["--policy-port", "1", "--lockstep"], "with --lockstep"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(
    tmp_path: Path, command: str, options: list[str], text: str
) -> None:
    with Command(tmp_path, command, *options, "--run-dir", "run") as refused:
        assert refused.wait() == CONFIG, refused.err

    assert re.search(text, refused.err), refused.err
    assert not (tmp_path / "run").exists()
