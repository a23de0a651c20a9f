"""EvaluationService by raw stubs: candidates, their assignment, results, and refusals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from admin_peer import admin_of
from evaluation_peer import EPISODES, evaluation_peer_of, make_result
from raw_peer import ENVIRONMENT, refused
from running_server import RunningServer, make_config

from impala_common.codec.weights import digest_of_snapshot, unpack_snapshot
from impala_common.config import TrainConfig
from impala_common.errors import NotFoundError
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.spec.specs import TensorSpec
from impala_rl.v1 import learner_pb2

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
ABORTED = grpc.StatusCode.ABORTED


def evaluated_config(**sections: dict[str, Any]) -> TrainConfig:
    """An update is some 60 steps, so every update crosses the interval."""
    settings = {"eval_interval_steps": 30, "eval_interval_episodes": EPISODES}
    return make_config(evaluation=settings | sections.pop("evaluation", {}), **sections)


def best_of(server: RunningServer) -> tuple[int, float]:
    """Returns step and sampled mean of the best checkpoint on disk, every byte verified."""
    best = CheckpointStore(server.run.checkpoints_path).load("best")
    assert set(best.tensors) >= {"weights", "optimizer", "rng"}
    return best.step, best.state["evaluation"]["sampled"]["return_mean"]


def candidates_on_disk(server: RunningServer) -> list[str]:
    path = server.run.candidates_path
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


def test_weights_of_candidate_are_those_of_its_update_bit_for_bit(tmp_path: Path) -> None:
    """Training goes on meanwhile. Planted: candidates copied from the newest snapshot."""
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        version = peer.train(server)
        _, chunks = peer.get_weights()
        candidate = peer.watch().candidate()
        peer.train(server, 2)

        header, data = peer.candidate_weights(candidate.name)

        assert candidate.policy_version == version
        assert (header.total_bytes, header.digest) == (len(data), digest_of_snapshot(data))
        expected = unpack_snapshot(b"".join(chunks))
        newest = unpack_snapshot(b"".join(peer.get_weights()[1]))
        played = unpack_snapshot(data)
        assert played.keys() == expected.keys()
        assert all(np.array_equal(played[name], expected[name]) for name in played)
        assert any(not np.array_equal(played[name], newest[name]) for name in played)


def test_best_checkpoint_is_the_best_of_those_reported_and_ties_keep_the_older(
    tmp_path: Path,
) -> None:
    """Planted: compared the wrong way, and ties taken."""
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        verdicts, steps = [], []
        watching = peer.watch()
        for sampled, greedy in ((1.0, 9.0), (2.0, 1.0), (1.5, 9.5), (2.0, 2.0)):
            peer.train(server)
            candidate = watching.candidate()
            steps.append(candidate.trained_steps)
            verdicts.append(peer.report(candidate.name, sampled, greedy).is_best)

        assert verdicts == [True, True, False, False]
        assert best_of(server) == (steps[1], 2.0)
        assert candidates_on_disk(server) == []
        status = server.wait_until(lambda status: status.get("evaluation_steps") == steps[3])
        assert status[metrics.EVALUATION_BEST_STEPS] == steps[1]
        server.stop()
        lines = [line for line in server.metrics() if metrics.EVALUATION_RETURN_MEAN in line]
        assert [line[metrics.STEPS] for line in lines] == steps
        assert [line[metrics.EVALUATION_RETURN_MEAN] for line in lines] == [1.0, 2.0, 1.5, 2.0]
        assert [line[metrics.GREEDY_RETURN_MEAN] for line in lines] == [9.0, 1.0, 9.5, 2.0]
        assert [line[metrics.EVALUATION_BEST] for line in lines] == [1.0, 2.0, 2.0, 2.0]
        assert [line[metrics.EVALUATION_LOW] for line in lines] == [0.0, 1.0, 0.5, 1.0]


def test_best_checkpoint_by_greedy_is_the_best_of_likeliest_actions(tmp_path: Path) -> None:
    config = evaluated_config(evaluation={"eval_best_by": "greedy"})
    with RunningServer(tmp_path, config) as server, evaluation_peer_of(server) as peer:
        watching = peer.watch()
        peer.train(server)
        assert peer.report(watching.candidate().name, sampled=1.0, greedy=3.0).is_best
        peer.train(server)

        assert not peer.report(watching.candidate().name, sampled=5.0, greedy=2.0).is_best


def test_best_checkpoint_survives_a_restart_and_starts_another_run(tmp_path: Path) -> None:
    """Planted: the resumed learner does not read it; then 1.7 becomes the best."""
    path, config = tmp_path / "run", evaluated_config(checkpoint={"keep_checkpoints": 1})
    with RunningServer(path, config) as server, evaluation_peer_of(server) as peer:
        watching = peer.watch()
        peer.train(server)
        assert peer.report(watching.candidate().name, 2.0).is_best
        first = best_of(server)
        peer.train(server)
        watching.candidate()  # never judged
    assert candidates_on_disk(server) == []

    with RunningServer(path, config) as server, evaluation_peer_of(server) as peer:
        watching = peer.watch()
        peer.train(server)
        candidate = watching.candidate()
        status = server.wait_until(lambda status: metrics.EVALUATION_BEST in status)
        assert status[metrics.EVALUATION_BEST] == 2.0
        assert not peer.report(candidate.name, 1.7).is_best
        assert best_of(server) == first
        peer.train(server)
        assert peer.report(watching.candidate().name, 3.0).is_best

    best = CheckpointStore(path / "checkpoints").load("best")
    config = make_config(job={"init_model_path": str(path / "checkpoints" / "best")})
    with RunningServer(tmp_path / "other", config) as server, evaluation_peer_of(server) as peer:
        peer.register()
        weights = unpack_snapshot(b"".join(peer.get_weights()[1]))
        assert all(
            np.array_equal(weights[n], array) for n, array in best.tensors["weights"].items()
        )


def test_candidate_that_nobody_plays_is_replaced_and_removed(tmp_path: Path) -> None:
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        watching = peer.watch()
        peer.train(server)
        played = watching.candidate()
        names = [played.name]
        for _ in range(4):
            version = peer.train(server)
            server.wait_until(
                lambda unused, version=version: any(
                    name.endswith(f"-{version}") for name in candidates_on_disk(server)
                )
            )
        server.wait_until(lambda unused: len(candidates_on_disk(server)) == 2)

        peer.report(played.name)
        newest = watching.candidate()

        assert newest.policy_version == version
        names.append(newest.name)
        server.wait_until(lambda unused: candidates_on_disk(server) == names[1:])
        with refused(NOT_FOUND, "NOT_FOUND"):
            peer.report(names[1].replace(f"-{version}", f"-{version - 1}"))


def test_candidate_of_a_broken_stream_goes_to_the_next_evaluator(tmp_path: Path) -> None:
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        first, second = peer.watch("first"), peer.watch("second")
        peer.train(server)
        candidate = first.candidate()

        first.call.cancel()

        assert second.candidate() == candidate


def test_second_stream_of_an_evaluator_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        first = peer.watch()
        peer.train(server)
        candidate = first.candidate()

        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPACITY"):
            peer.watch()

        assert peer.report(candidate.name).is_best


def test_report_from_a_seat_that_does_not_hold_the_candidate_changes_nothing(
    tmp_path: Path,
) -> None:
    """Seen to fail: a report of 1e17 from a stranger became the best."""
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        watching = peer.watch()
        peer.watch("idle")
        peer.train(server)
        candidate = watching.candidate().name

        for stranger in ("idle", "nobody"):
            with refused(NOT_FOUND, "NOT_FOUND"):
                peer.report(candidate, 1e17, 1e17, evaluator_id=stranger)

        with refused(NOT_FOUND, "NOT_FOUND", "does not hold"):  # in the evaluator's name
            peer.report(candidate, 9.0, ticket=peer.tickets[candidate] ^ 1)
        assert peer.report(candidate).is_best
        assert best_of(server)[1] == 1.0


@pytest.mark.parametrize("has_returns", [True, False])
@pytest.mark.parametrize("mode", ["sampled", "greedy"])
def test_return_far_beyond_those_of_training_is_doubtful_and_never_the_best(
    tmp_path: Path, mode: str, has_returns: bool
) -> None:
    """Before: a return of 1e17 from the seat became the best, for good."""
    config = evaluated_config(evaluation={"eval_best_by": mode})
    with RunningServer(tmp_path, config) as server, evaluation_peer_of(server) as peer:
        peer.episode_return = 20.0 if has_returns else None
        watching = peer.watch()
        for value in (-1e17, 1e17, 2001.0):
            peer.train(server)
            absurd = peer.report(watching.candidate().name, **{mode: value})
            assert (absurd.is_best, absurd.is_doubtful) == (False, True)
        peer.train(server)
        honest = peer.report(watching.candidate().name, 7.0, 7.0)

        assert (honest.is_best, honest.is_doubtful) == (True, False)
        assert best_of(server)[1] == 7.0


def test_best_that_an_administrator_sets_aside_is_followed_by_the_next(tmp_path: Path) -> None:
    """Before: nothing could correct a false best, which survived each resume."""
    path = tmp_path / "run"
    with (
        RunningServer(path, evaluated_config()) as server,
        evaluation_peer_of(server) as peer,
        admin_of(server) as admin,
    ):
        watching = peer.watch()
        peer.train(server)
        with pytest.raises(NotFoundError, match="no best"):
            admin.call("ClearBest")
        assert peer.report(watching.candidate().name, 7.0).is_best
        step = best_of(server)[0]

        cleared = admin.ask("ClearBest")

        assert cleared == {"name": "best-cleared-1", "return_mean": 7.0}
        assert CheckpointStore(server.run.checkpoints_path).load("best-cleared-1").step == step
        server.wait_until(lambda status: metrics.EVALUATION_BEST not in status)
        peer.train(server)
        assert peer.report(watching.candidate().name, 1.0).is_best
        assert best_of(server)[1] == 1.0
        assert admin.ask("ClearBest")["name"] == "best-cleared-2"
    with RunningServer(path, evaluated_config()) as server:
        server.wait_until(lambda status: status["state"] == "RUNNING")
        assert metrics.EVALUATION_BEST not in server.wait_until(lambda _: True)


def test_evaluators_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        watches = [peer.watch(f"judge-{index}") for index in range(4)]
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPACITY"):
            peer.watch("one-too-many")

        watches[0].call.cancel()
        server.wait_until(lambda unused: _has_room(peer))


def _has_room(peer: Any) -> bool:
    try:
        peer.watch("one-too-many")
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("is_begun", [True, False])
def test_evaluator_of_another_environment_is_told_the_difference(
    tmp_path: Path, is_begun: bool
) -> None:
    other = dataclasses.replace(
        ENVIRONMENT, observation_leaves=(TensorSpec("observation", (5,), "float32"),)
    )
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        if is_begun:
            peer.train(server)
        watching = peer.watch(spec=other)
        peer.train(server)

        with refused(grpc.StatusCode.FAILED_PRECONDITION, "SPEC_MISMATCH") as facts:
            watching.next()
        assert "observation" in facts["field"]
        assert "5" in facts["actual"]


def test_end_of_the_run_waits_for_the_verdict_on_the_last_weights(tmp_path: Path) -> None:
    """The second of three updates crosses the interval, the last one does not.

    Planted: no candidate of the last update; evaluators sent away with the actors.
    """
    config = evaluated_config(job={"total_steps": 100}, evaluation={"eval_interval_steps": 80})
    with RunningServer(tmp_path, config) as server, evaluation_peer_of(server) as peer:
        watching = peer.watch()
        peer.train(server, 2)
        first = watching.candidate()
        peer.push_unanswered(3)
        server.wait_until(lambda status: status.get("is_judging", False))
        peer.report(first.name, 1.0)

        last = watching.candidate()
        weights = unpack_snapshot(peer.candidate_weights(last.name)[1])
        assert peer.report(last.name, 2.0).is_best
        end = watching.next()

        assert end.end == learner_pb2.DRAIN_REASON_FINISHED
        server.wait_finished()
    newest = server.checkpoint()
    assert 80 < first.trained_steps < 100 <= last.trained_steps == newest.step < 160
    assert all(np.array_equal(weights[name], newest.tensors["weights"][name]) for name in weights)
    assert best_of(server) == (newest.step, 2.0)
    assert server.metrics()[-1][metrics.EVALUATION_RETURN_MEAN] == 2.0
    assert candidates_on_disk(server) == []


@pytest.mark.parametrize("why", ["time is up", "a stop", "nobody is left", "it is not wanted"])
def test_end_of_the_run_without_a_verdict_comes_all_the_same(tmp_path: Path, why: str) -> None:
    """Planted: a stop not read while waiting; the number of evaluators not looked at."""
    wait_s = {"time is up": 0.3, "it is not wanted": 0.0}.get(why, 600.0)
    config = evaluated_config(job={"total_steps": 80}, evaluation={"eval_last_wait_s": wait_s})
    with RunningServer(tmp_path, config) as server, evaluation_peer_of(server) as peer:
        watching = peer.watch()
        peer.train(server)
        watching.candidate()
        peer.push_unanswered(3)
        if wait_s > 1.0:
            server.wait_until(lambda status: status.get("is_judging", False))
            if why == "a stop":
                server.supervisor.request_stop()
            else:
                watching.call.cancel()
        if why != "nobody is left":
            assert watching.next().end == learner_pb2.DRAIN_REASON_FINISHED
        server.wait_finished(10.0)
    assert candidates_on_disk(server) == []


NAN, INF = math.nan, math.inf
HOSTILE: dict[str, dict[str, Any]] = {
    "mean not a number": {"return_mean": NAN},
    "infinite": {"return_max": INF},
    "error not a number": {"standard_error": NAN},
    "negative error": {"standard_error": -1.0},
    "no episodes": {"episode_count": 0},
    "negative count": {"episode_count": -4},
    "fewer than asked": {"episode_count": EPISODES - 1},
    "more than there can be": {"episode_count": 2**31 - 1},
    "mean above the largest": {"return_max": 0.5},
    "interval beside the mean": {"confidence_low": 1.5},
    "no length": {"length_min": 0},
    "negative length": {"length_min": -5},
    "length mean beyond": {"length_mean": 1e9},
    "more cut than played": {"cut_count": EPISODES + 1},
    "no interval": {"confidence_low": None},
}


def test_report_that_cannot_be_one_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """Planted: a result that is not validated; then the next good report is a duplicate."""
    with RunningServer(tmp_path, evaluated_config()) as server, evaluation_peer_of(server) as peer:
        watching = peer.watch()
        peer.train(server)
        candidate = watching.candidate().name

        for what, changes in HOSTILE.items():
            for mode in ("sampled", "greedy"):
                with refused(INVALID, "INVALID_REQUEST", mode):
                    peer.report(candidate, **{mode: make_result(**changes)})
                    pytest.fail(what)
        for changes in ({"greedy": None}, {"evaluator_id": ""}, {"evaluator_id": "../x"}):
            with refused(INVALID, "INVALID_REQUEST"):
                peer.report(candidate, **changes)
        for name in ("", "best", "../checkpoints/best", "candidate-000000000000-0", "x" * 64):
            with refused(NOT_FOUND, "NOT_FOUND"):
                peer.report(name)
            with refused(NOT_FOUND, "NOT_FOUND"):
                peer.candidate_weights(name)
        for call in (peer.report, peer.candidate_weights):
            with refused(INVALID, "INVALID_REQUEST", "candidate: expected at most 64"):
                call("x" * 65)
        with refused(ABORTED, "STALE_SESSION"):
            peer.report(candidate, learner_run_id=1)
        with refused(ABORTED, "STALE_SESSION"):
            peer.candidate_weights(candidate, learner_run_id=1)

        first = peer.report(candidate)
        again = peer.report(candidate, 99.0)
        assert (first.is_best, first.is_duplicate) == (True, False)
        assert (again.is_best, again.is_duplicate) == (True, True)
        assert best_of(server)[1] == 1.0
