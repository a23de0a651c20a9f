"""impala-train chooses actors, slots and threads for the machine unless a setting names them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from impala_common.config import (
    EnvironmentConfig,
    EvaluationConfig,
    JobConfig,
    ReuseConfig,
    RolloutConfig,
    TrainConfig,
)
from impala_common.config.cli import parse_train_config
from impala_common.config.presets import make_preset
from impala_common.config.toml_io import dump_config
from impala_server.local.tuning import (
    TUNED_SETTINGS,
    MachineFacts,
    choose_local_run,
    find_environment_kind,
    find_machine_facts,
)

NOTHING: frozenset[str] = frozenset()


def make_config(
    env: str,
    num_actors: int = 2,
    num_slots: int = 16,
    learner_threads: int = 0,
    env_threads: int = 0,
) -> TrainConfig:
    return TrainConfig(
        job=JobConfig(
            num_actors=num_actors, learner_threads=learner_threads, env_threads=env_threads
        ),
        environment=EnvironmentConfig(env=env, envs_per_actor=num_slots),
    )


def choose(config: TrainConfig, facts: MachineFacts, named: frozenset[str] = NOTHING) -> list[int]:
    chosen = choose_local_run(config, named, facts).config
    job = chosen.job
    return [job.num_actors, chosen.environment.envs_per_actor, job.learner_threads, job.env_threads]


@pytest.mark.parametrize(
    ("env", "num_cores", "has_gpu", "chosen"),
    [
        ("ALE/Pong-v5", 1, False, [1, 32, 1, 1]),
        ("ALE/Pong-v5", 2, False, [1, 32, 1, 2]),
        ("ALE/Pong-v5", 16, False, [8, 16, 8, 1]),
        ("ALE/Pong-v5", 16, True, [15, 16, 1, 1]),
        ("MinAtar/Breakout-v1", 2, False, [1, 32, 1, 1]),
        ("my_module:Mine-v0", 8, False, [4, 16, 4, 1]),
        ("CartPole-v1", 2, False, [1, 32, 1, 1]),
        ("CartPole-v1", 64, False, [1, 32, 63, 1]),
    ],
)
def test_choice_follows_cores_and_kind_of_environment(
    env: str, num_cores: int, has_gpu: bool, chosen: list[int]
) -> None:
    """Slots in all stay the preset's on two cores. Planted: slots of dropped actors forgotten."""
    facts = MachineFacts(num_cores=num_cores, has_gpu=has_gpu)

    assert choose(make_config(env), facts) == chosen
    assert choose(make_config(env), facts) == chosen


@pytest.mark.parametrize(
    ("env", "num_cores", "has_gpu", "chosen"),
    [
        ("ALE/Pong-v5", 2, False, [1, 32, 2, 2]),
        ("ALE/Pong-v5", 16, False, [3, 16, 16, 1]),
        ("ALE/Pong-v5", 16, True, [15, 16, 1, 1]),
        ("MinAtar/Breakout-v1", 2, False, [1, 32, 1, 1]),
        ("my_module:Mine-v0", 2, False, [1, 32, 1, 1]),
        ("my_module:Mine-v0", 8, False, [2, 16, 1, 1]),
    ],
)
def test_passes_leave_fewer_cores_to_actors(
    env: str, num_cores: int, has_gpu: bool, chosen: list[int]
) -> None:
    """Planted: passes not looked at, so that two actors share a core with a busy learner."""
    config = dataclasses.replace(make_config(env), reuse=ReuseConfig(passes=4))

    assert choose(config, MachineFacts(num_cores=num_cores, has_gpu=has_gpu)) == chosen


@pytest.mark.parametrize(
    ("total_steps", "named", "interval", "num_episodes"),
    [
        (100_000, (), 0, 20),
        (200_000, (), 25_000, 10),
        (1_000_000, (), 40_000, 10),
        (1_000_000, ("eval_interval_steps",), 0, 20),
        (1_000_000, ("eval_interval_episodes",), 40_000, 20),
        (1_000_000, TUNED_SETTINGS, 40_000, 10),
    ],
)
def test_runs_that_are_not_short_are_evaluated(
    total_steps: int, named: tuple[str, ...], interval: int, num_episodes: int
) -> None:
    """Planted: an interval of 0 that somebody named taken for none."""
    config = dataclasses.replace(make_config("A-v0"), job=JobConfig(total_steps=total_steps))

    chosen = choose_local_run(config, frozenset(named), MachineFacts(num_cores=2)).config

    assert chosen.evaluation.eval_interval_steps == interval
    assert chosen.evaluation.eval_interval_episodes == num_episodes
    assert (chosen.evaluation.eval_max_share > 0) is (interval > 0)


def test_interval_of_evaluations_that_the_settings_have_stays() -> None:
    config = dataclasses.replace(
        make_config("A-v0"), evaluation=EvaluationConfig(eval_interval_steps=7)
    )

    assert choose_local_run(config, NOTHING, MachineFacts(num_cores=2)).config.evaluation == (
        config.evaluation
    )


def test_threads_of_a_preset_that_gains_nothing_from_more_stay() -> None:
    config = make_config("CartPole-v1", learner_threads=1)

    assert choose(config, MachineFacts(num_cores=64))[2] == 1


@pytest.mark.parametrize("named", TUNED_SETTINGS)
def test_named_setting_stays(named: str) -> None:
    """Planted: `named` not looked at."""
    config = make_config("ALE/Pong-v5", 3, num_slots=5)
    index = TUNED_SETTINGS.index(named)
    chosen = choose(config, MachineFacts(num_cores=1), frozenset({named}))

    assert chosen[index] == [3, 5, 0, 0][index]


def test_all_named_or_lockstep_changes_nothing_and_says_nothing() -> None:
    config = make_config("ALE/Pong-v5")
    lockstep = dataclasses.replace(
        make_config("CartPole-v1", num_actors=1, num_slots=8),
        rollout=RolloutConfig(batch_size=8),
    )
    lockstep = dataclasses.replace(lockstep, job=dataclasses.replace(lockstep.job, lockstep=True))
    facts = MachineFacts(num_cores=64)

    for case, named in ((config, frozenset(TUNED_SETTINGS)), (lockstep, NOTHING)):
        choice = choose_local_run(case, named | {"eval_interval_steps"}, facts)
        assert choice.config == case
        assert choice.text == ""


def test_little_memory_means_fewer_actors_with_the_same_slots_in_all() -> None:
    """Planted: the limit of memory left out."""
    config = make_config("ALE/Pong-v5")

    assert choose(config, MachineFacts(num_cores=2, free_mib=1100)) == [1, 32, 1, 2]
    assert choose(config, MachineFacts(num_cores=2, free_mib=100)) == [1, 32, 1, 2]


def test_text_says_what_was_chosen_and_for_what() -> None:
    choice = choose_local_run(make_config("ALE/Pong-v5"), NOTHING, MachineFacts(num_cores=2))

    assert choice.text == (
        "1 actor with 32 environment slots each on 2 threads, 1 learner thread, for 2 cores and "
        "ALE/Pong-v5: "
        "emulators get the cores that the learner leaves"
    )


def test_wrappers_make_any_environment_one_of_python() -> None:
    """A vector entry point is not used then."""
    plain = make_config("CartPole-v1")
    wrapped = dataclasses.replace(
        plain, environment=dataclasses.replace(plain.environment, env_kwargs='{"a": 1}')
    )

    assert find_environment_kind(plain) == "light"
    assert find_environment_kind(wrapped) == "python"


def test_facts_keep_to_the_container(tmp_path: Path) -> None:
    """Planted: quota and period the wrong way round; bytes taken for MiB."""
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{300 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{100 * 2**20}\n")

    facts = find_machine_facts(tmp_path)

    assert facts.num_cores == 1
    assert facts.free_mib is not None
    assert facts.free_mib <= 200


def test_facts_without_limits_are_those_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")

    assert find_machine_facts(tmp_path).num_cores >= 1


def test_named_settings_are_those_of_options_and_files(tmp_path: Path) -> None:
    """Planted: files not looked at; a resumed run fitted to the machine anew."""
    path = tmp_path / "mine.toml"
    path.write_text("[environment]\nenvs_per_actor = 3\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(dump_config(make_preset("cartpole")))

    by_option = parse_train_config("x", ["--env", "A-v0", "--num-actors=3"], "").named
    by_name = parse_train_config("x", ["--env", "A-v0", "--learner_threads", "1"], "").named
    by_file = parse_train_config("x", ["--env", "A-v0", "--config", str(path)], "").named
    resumed = parse_train_config("x", ["--resume", str(run)], "").named

    assert by_option & set(TUNED_SETTINGS) == {"num_actors"}
    assert by_name & set(TUNED_SETTINGS) == {"learner_threads"}
    assert by_file & set(TUNED_SETTINGS) == {"envs_per_actor"}
    assert resumed.issuperset(TUNED_SETTINGS)
