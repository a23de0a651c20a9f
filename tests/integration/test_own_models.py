"""Networks of one's own over real channels: trained, resumed, rolled back, and refused.

Learner and actors are in this process, so both import the same file; where the two sides
are to differ, a maker looks at which thread it is called on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import own_networks
import pytest
from admin_peer import admin_of, wait_for_updates
from raw_peer import ENVIRONMENT, peer_of, refused
from reference_loop import train_reference
from running_server import RunningServer, make_config
from torch import nn

from impala_actor.environments.factory import make_environment
from impala_actor.evaluation.run_evaluation import evaluate_run
from impala_common.config import TrainConfig
from impala_common.errors import CheckpointError, ImpalaError, ModelError, SpecMismatchError
from impala_common.models.registry import register_model
from impala_common.models.weights import weights_specs
from impala_common.process.exit_codes import CONFIG, exit_code_of
from impala_common.run.checkpoints import CheckpointStore
from impala_common.spec.specs import EnvironmentSpec, ModelSpec
from impala_server.front_end.data_plane.learner_servicer import LearnerServicer

pytestmark = pytest.mark.timeout(60)

ENV = "CartPole-v1"
PLAIN, REMEMBERING = "own_networks:Plain", "own_networks:Remembering"


def own_config(model: str, **sections: dict[str, Any]) -> TrainConfig:
    settings = {"model": {"model": model, "feature_dim": 16, "recurrence": "gru"}}
    return make_config(**(settings | sections))


def error_of(server: RunningServer, **settings: Any) -> ImpalaError:
    """Returns what an actor ends with that cannot take part."""
    actor = server.run_actor(ENV, **settings)
    actor.join()
    error, actor.error = actor.error, None  # expected: the server's end is not to fail for it
    assert isinstance(error, ImpalaError), error
    assert exit_code_of(error) == CONFIG
    return error


def test_recurrent_own_network_in_lockstep_equals_the_reference_loop(tmp_path: Path) -> None:
    """Planted: previous actions and rewards handed to the learner only where the setting asks
    for them (ModelSpec.is_fed_back without is_own): largest difference .03.
    """
    config = own_config(
        REMEMBERING,
        job={"total_steps": 2_500, "lockstep": True, "seed": 3},
        rollout={"unroll_length": 16, "batch_size": 8, "num_storages": 16},
        loss={"vtrace_lambda": 0.95},
    )
    with RunningServer(tmp_path, config) as server:
        server.run_actor(ENV, model=REMEMBERING)
        server.wait_finished()
        weights = server.weights()
    settings = dataclasses.replace(config.environment, env_backend="sync")
    with contextlib.closing(make_environment(ENV, 8, settings)) as environment:
        reference = train_reference(config, environment)

    assert weights.keys() == reference.weights.keys()
    differences = {name: np.abs(weights[name] - reference.weights[name]).max() for name in weights}
    assert max(differences.values()) <= 1e-6, differences


@pytest.mark.parametrize("model", [PLAIN, "own_networks:Features"])
def test_own_network_is_trained_resumed_rolled_back_and_judged(tmp_path: Path, model: str) -> None:
    config = own_config(model)
    with RunningServer(tmp_path, config) as server:
        server.run_actor(ENV, model=model)
        wait_for_updates(server)
        server.stop()
        stopped = server.checkpoint()
    assert any(
        name.startswith(("encoder.layer", "network.body")) for name in stopped.tensors["weights"]
    )

    with RunningServer(tmp_path, config) as server, admin_of(server) as admin:
        server.run_actor(ENV, model=model)
        wait_for_updates(server)
        assert admin.status()["learner"]["trained_steps"] > stopped.step
        admin.ask("Pause")
        saved_as = admin.ask("Rollback", name=stopped.name)["saved_as"]
        restored = CheckpointStore(server.run.checkpoints_path).load(saved_as)
        for name, array in stopped.tensors["weights"].items():
            np.testing.assert_array_equal(restored.tensors["weights"][name], array, err_msg=name)
        admin.ask("Resume")
        wait_for_updates(server, 2)
        server.stop()

    result = evaluate_run(tmp_path, num_episodes=2, num_slots=2, seed=5, env=ENV)
    assert result.evaluation.num_episodes == 2


@pytest.mark.parametrize(
    ("run", "started_with", "message"),
    [
        (PLAIN, "", f"expected {PLAIN}, .* with no --model: add --model {PLAIN}"),
        (PLAIN, REMEMBERING, f"with --model {REMEMBERING}: start it with --model {PLAIN}"),
        ("mlp", PLAIN, f"expected mlp, .* with --model {PLAIN}: start it without"),
    ],
)
def test_register_with_another_model_is_refused_before_the_run_is_built(
    tmp_path: Path, run: str, started_with: str, message: str
) -> None:
    """Planted: the check after `define`: the refused actor's environment had become the run's."""
    with RunningServer(tmp_path, own_config(run, job={"total_steps": 500})) as server:
        error = error_of(server, model=started_with)

        assert isinstance(error, SpecMismatchError)
        assert error.field == "model"
        with pytest.raises(SpecMismatchError, match=message):
            raise error
        assert not server.run.specs_path.exists()
        server.run_actor(ENV, model=run if ":" in run else "")
        server.wait_finished()


def test_register_over_the_wire_names_both_models(tmp_path: Path) -> None:
    with RunningServer(tmp_path, own_config(PLAIN)) as server, peer_of(server) as peer:
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "SPEC_MISMATCH") as facts:
            peer.register(model="x" * 250)
        answer = peer.register(model=PLAIN)

    assert facts["field"] == "model"
    assert len(facts["actual"]) < 1000
    assert answer.model.name == PLAIN
    assert [spec.name for spec in answer.weights] == [
        f"network.{name}"
        for name in own_networks.Plain(None, ENVIRONMENT).state_dict()  # type: ignore[arg-type]
    ]


def test_learner_that_names_a_module_makes_no_actor_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: no check of the answer in LearnerClient.register: the trap was imported."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "trap_net.py").write_text("from own_networks import Plain as Net\n")
    monkeypatch.syspath_prepend(trap)
    registered = LearnerServicer._registered

    def lie(*arguments: Any) -> Any:
        response = registered(*arguments)
        response.model.name = "trap_net:Net"
        return response

    monkeypatch.setattr(LearnerServicer, "_registered", lie)
    with RunningServer(tmp_path / "run", make_config()) as server:
        error = error_of(server)

    assert isinstance(error, SpecMismatchError)
    assert "trap_net" not in sys.modules


def register_two_sided(name: str, learner: int, actor: int) -> None:
    """Registers a network whose width depends on the side that makes it."""

    def make(spec: ModelSpec, environment: EnvironmentSpec) -> nn.Module:
        is_actor = threading.current_thread().name.startswith("test-actor")
        network = own_networks.Plain(spec, environment)
        width = actor if is_actor else learner
        network.body = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 16))
        return network

    register_model(name, make)


@pytest.mark.parametrize(("learner", "actor"), [(8, 9), (9, 8)])
def test_actor_with_other_code_of_the_network_names_the_first_tensor(
    tmp_path: Path, learner: int, actor: int
) -> None:
    """Planted: weights of RegisterResponse not compared: the actor failed later, while loading."""
    name = "object:two-sided"
    register_two_sided(name, learner, actor)
    with RunningServer(tmp_path, own_config(name)) as server:
        error = error_of(server, model=name)

        assert isinstance(error, SpecMismatchError)
        assert error.field == f"weights of {name}, network.body.0.weight"
        assert str(error.expected).startswith(f"float32 [{learner}, 4]")
        assert str(error.actual).startswith(f"float32 [{actor}, 4]")


def test_shipped_networks_of_two_versions_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def specs(model: nn.Module) -> Any:
        return weights_specs(model)[1:]

    monkeypatch.setattr("impala_actor.acting.session_model.weights_specs", specs)
    with RunningServer(tmp_path, make_config()) as server:
        error = error_of(server)

    assert isinstance(error, SpecMismatchError)
    assert "no such tensor" in str(error)


def test_network_that_breaks_the_contract_is_refused_by_the_learner_with_the_shapes(
    tmp_path: Path,
) -> None:
    name = "own_networks:Wide"
    with RunningServer(tmp_path, own_config(name)) as server:
        for _ in range(2):  # the learner stays, and refuses each who comes
            error = error_of(server, model=name)

            assert isinstance(error, ModelError)
            assert "the learner refuses: model own_networks:Wide: policy_logits" in str(error)
            assert "expected [2, 3, 2], got [2, 3, 3]" in str(error)
        assert not server.run.specs_path.exists()


def test_network_that_only_the_actor_cannot_make_is_named_by_the_actor(tmp_path: Path) -> None:
    def make(spec: ModelSpec, environment: EnvironmentSpec) -> nn.Module:
        if threading.current_thread().name.startswith("test-actor"):
            raise FileNotFoundError("embeddings.bin")
        return own_networks.Plain(spec, environment)

    register_model("object:one-sided", make)
    with RunningServer(tmp_path, own_config("object:one-sided")) as server:
        error = error_of(server, actor_id="far-away", model="object:one-sided")

    assert isinstance(error, ModelError)
    assert "this actor, far-away: model object:one-sided" in str(error)
    assert "FileNotFoundError: embeddings.bin (test_own_models.py:" in str(error)


def test_class_that_is_nowhere_ends_the_learner_before_any_actor_comes(tmp_path: Path) -> None:
    server = RunningServer(tmp_path, own_config("no_such_nets:Net"))
    with pytest.raises(ModelError, match="No module named 'no_such_nets'"), server:
        server.wait_until(lambda unused_status: False, 10.0)


def test_checkpoint_of_a_network_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    name = "object:changing"
    register_two_sided(name, 8, 8)
    config = own_config(name, job={"total_steps": 500})
    with RunningServer(tmp_path, config) as server:
        server.run_actor(ENV, model=name)
        server.wait_finished()

    register_two_sided(name, 9, 9)

    message = r"network.body.0.weight.*\(8, 4\).*\(9, 4\)"
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        evaluate_run(tmp_path, num_episodes=1, num_slots=1, seed=1, env=ENV)
    again = RunningServer(tmp_path, config)
    with pytest.raises(CheckpointError, match=r"(?s)object:changing.*body.0.weight"), again:
        again.wait_until(lambda unused_status: False, 10.0)
