"""Actors of impala-train: replaced when they die, and given up when they cannot work."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from impala_common.config import (
    EnvironmentConfig,
    EvaluationConfig,
    JobConfig,
    ModelConfig,
    PolicyServingConfig,
    TrainConfig,
)
from impala_common.errors import ConfigError, ImpalaError
from impala_common.process.exit_codes import CONFIG, OK, USAGE
from impala_common.run.run_directory import RunDirectory
from impala_server import train_cli
from impala_server.local import actors as local_actors
from impala_server.local import process as local_process
from impala_server.local.actors import validate_local_run
from impala_server.local.process import MAX_QUICK_DEATHS


class Bench:
    """One actor whose processes end as the test says, and the clock it looks at."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.num_starts = 0
        clock = types.SimpleNamespace(monotonic=lambda: self.now_s)
        monkeypatch.setattr(local_process, "time", clock)
        self._code = path / "code"
        # Its last words, then the exit code that stands in a file.
        code = "import sys; sys.stderr.write('noise\\nerror: last words\\nmore\\n'); "
        code += f"sys.exit(int(open({str(self._code)!r}).read()))"
        command = [sys.executable, "-S", "-c", code]
        self.actor = local_process.LocalProcess("actor-0", command, path / "log")
        start = self.actor.start

        def counted() -> None:
            self.num_starts += 1
            start()

        monkeypatch.setattr(self.actor, "start", counted)

    def run_to_end(self, code: int) -> None:
        """Starts the actor if it rests, and lets it end with `code`."""
        self._code.write_text(str(code))
        if self.actor._process is None:
            self.actor.start()
        assert self.actor._process is not None
        assert self.actor._process.wait(10.0) == code


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize("code", [CONFIG, USAGE])
def test_check_of_actor_whose_settings_cannot_work_raises_its_words(
    bench: Bench, code: int
) -> None:
    bench.run_to_end(code)

    with pytest.raises(ConfigError, match=r"^last words$"):
        bench.actor.check()


def test_check_of_actor_that_died_replaces_it_after_a_pause(bench: Bench) -> None:
    bench.run_to_end(1)
    bench.actor.check()
    bench.actor.check()
    assert bench.num_starts == 1

    bench.now_s += 1.1
    bench.actor.check()

    assert bench.num_starts == 2
    bench.actor.join(10.0)


def test_check_of_actor_that_keeps_dying_waits_longer_and_then_gives_up(bench: Bench) -> None:
    for pause_s in (1.0, 2.0, 4.0, 8.0):
        bench.run_to_end(7)
        bench.actor.check()
        assert bench.actor._restart_s - bench.now_s == pause_s
    bench.run_to_end(7)

    with pytest.raises(ImpalaError, match=r"failed 5 times .* exit code 7: last words"):
        bench.actor.check()


def test_check_of_actor_that_dies_once_in_a_while_goes_on_for_ever(bench: Bench) -> None:
    for _ in range(10):
        bench.run_to_end(1)
        bench.now_s += 601.0
        bench.actor.check()
        bench.now_s += 60.0

    assert bench.num_starts == 10


def test_check_of_actor_that_fails_again_and_again_after_a_minute_gives_up_and_says_why(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen to fail when only lives shorter than 20 s were counted: it was replaced for ever."""
    for _ in range(4):
        bench.run_to_end(1)
        bench.now_s += 60.0
        bench.actor.check()
        assert "exit code 1: last words" in caplog.text
        bench.now_s += 60.0
        bench.actor.check()
    bench.run_to_end(1)
    bench.now_s += 60.0

    with pytest.raises(ImpalaError, match=r"failed 5 times .* exit code 1: last words"):
        bench.actor.check()


def test_check_of_actor_that_was_sent_away_brings_it_back(bench: Bench) -> None:
    """Seen to fail (training stood still without a word) when exit code 0 was the end of it."""
    bench.run_to_end(OK)
    bench.actor.check()
    bench.actor.check()
    assert bench.num_starts == 1

    bench.now_s += 5.0
    bench.actor.check()

    assert bench.num_starts == 2
    bench.actor.join(10.0)


def test_actor_that_ends_at_once_again_and_again_is_given_up(bench: Bench) -> None:
    """Seen to fail: an environment that called os._exit(0) was started for ever, without a word."""
    for _ in range(MAX_QUICK_DEATHS - 1):
        bench.run_to_end(OK)
        bench.actor.check()

    bench.run_to_end(OK)
    with pytest.raises(ImpalaError, match=r"ended 5 times in a row .* exit code 0: its environ"):
        bench.actor.check()


def test_actor_that_was_sent_away_now_and_then_comes_back_for_ever(bench: Bench) -> None:
    for _ in range(3 * MAX_QUICK_DEATHS):
        bench.run_to_end(OK)
        bench.now_s += 30.0
        bench.actor.check()


def test_command_that_is_made_for_each_start_is_told_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    fixed, numbers = bench.actor.command, []
    assert isinstance(fixed, list)
    bench.actor.command = lambda start: numbers.append(start) or fixed
    for _ in range(3):
        bench.run_to_end(OK)
        bench.actor.check()
        bench.now_s += 60.0

    assert numbers == [0, 1, 2]


def test_thin_actors_play_other_games_after_each_start_and_in_each_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: replacements and resumed runs began with the games of the first start."""
    commands: list[list[str]] = []

    def spawn(command: list[str], *_: object) -> types.SimpleNamespace:
        commands.append(command)
        return types.SimpleNamespace(poll=lambda: OK)

    monkeypatch.setattr(local_process, "_spawn", spawn)
    now = types.SimpleNamespace(s=0.0)
    monkeypatch.setattr(local_process, "time", types.SimpleNamespace(monotonic=lambda: now.s))
    config = TrainConfig(
        environment=EnvironmentConfig(env="CartPole-v1"),
        policy_server=PolicyServingConfig(thin=True),
        job=JobConfig(num_actors=2),
        evaluation=EvaluationConfig(eval_interval_steps=0),
    )
    run = RunDirectory(tmp_path)
    run.create()

    def seeds_of(life: int) -> list[str]:
        """Starts the thin actors, and each a second time."""
        actors = local_actors.LocalActors(config, run, "127.0.0.1:1", learner_life=life)
        actors.start()
        run.policy_address_path.write_text("127.0.0.1:2")
        commands.clear()
        for _ in range(3):
            actors.check()
            now.s += 60.0
        return [one[one.index("--seed") + 1] for one in commands if "--seed" in one]

    first, second = seeds_of(0), seeds_of(1)

    assert len(first) == len(second) == 4
    assert len({*first, *second}) == 8
    assert seeds_of(0) == first  # and the same in the same run


def test_train_on_an_own_network_that_is_nowhere_ends_before_any_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault: the module looked for by the learner only, ten seconds later."""
    monkeypatch.setattr("impala_server.train_cli.open_run", lambda unused: pytest.fail("begun"))
    options = ["--env", "CartPole-v1", "--model", "nope_nets.small:Net"]

    code = train_cli.run([*options, "--run-dir", str(tmp_path / "run")])

    assert code == CONFIG
    error = capsys.readouterr().err
    assert "--model is 'nope_nets.small:Net'" in error
    assert "no nope_nets.small: install it, or name its folder in PYTHONPATH" in error


@pytest.mark.parametrize("model", ["own_nets:Net", "own_package.nets:Net", "object:Net", "mlp"])
def test_validate_looks_for_an_own_network_without_running_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """The fault: the module of a package looked for by its whole name."""
    (tmp_path / "own_nets.py").write_text("raise SystemExit('imported')")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    environment = EnvironmentConfig(env="CartPole-v1")

    validate_local_run(TrainConfig(environment=environment, model=ModelConfig(model=model)))


def test_actor_that_is_still_starting_when_the_run_is_over_is_asked_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault: it was waited for, as if the learner had told it, and killed after 15 s."""
    monkeypatch.setattr(local_actors, "_TOLD_S", 0.1)
    run = RunDirectory(tmp_path)
    run.create()
    config = TrainConfig(environment=EnvironmentConfig(env="CartPole-v1"))
    actors = local_actors.LocalActors(config, run, "127.0.0.1:1")
    command = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    late = local_process.LocalProcess("actor-0", command, tmp_path / "log")
    actors._actors = [late]
    actors.start()

    actors.stop(is_run_over=True)

    assert late._process is None
    assert "killed" not in caplog.text


def test_actor_whose_log_was_removed_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: a traceback ended the training, after somebody had tidied the logs."""
    bench = Bench(tmp_path, monkeypatch)
    bench.run_to_end(1)
    bench.actor.log_path.unlink()

    bench.actor.check()

    bench.now_s += 60.0
    bench.actor.check()
    assert bench.num_starts == 2
