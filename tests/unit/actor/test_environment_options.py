"""Wrappers, arguments, objects, optional packages and old Gym, as a command line meets them."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from impala_actor.acting.actor_config import ActorConfig
from impala_actor.acting.actor_loop import Actor
from impala_actor.environments.adapter import EnvironmentAdapter
from impala_actor.environments.factory import make_environment, register_environment
from impala_actor.environments.watchdog import EnvironmentWatchdog
from impala_common.codec.specs import pack_environment_options
from impala_common.config import TrainConfig
from impala_common.config.cli import parse_train_config
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import (
    ConfigError,
    MissingExtraError,
    SpecMismatchError,
    UnknownEnvironmentError,
    UnsupportedSpaceError,
)
from impala_common.testing.environments import CountingEnv
from impala_server.local.actors import _command

HERE = "test_environment_options_wrappers"
IMG_OBS = "minigrid.wrappers:ImgObsWrapper"
EMPTY_ROOM = "MiniGrid-Empty-5x5-v0"


class Doubled(gymnasium.ObservationWrapper[Any, Any, Any]):
    def observation(self, observation: Any) -> Any:
        return observation * 2


def plus_one(env: Any) -> Any:
    return gymnasium.wrappers.TransformObservation(env, lambda x: x + 1, env.observation_space)


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this file's wrappers importable by a name."""
    module = types.ModuleType(HERE)
    vars(module).update(
        Doubled=Doubled,
        plus_one=plus_one,
        raising=lambda env: 1 / 0,
        forgetful=lambda env: None,
        number=3,
    )
    monkeypatch.setitem(sys.modules, HERE, module)


def make(env_id: str, num_slots: int = 2, **settings: Any) -> EnvironmentAdapter:
    return make_environment(env_id, num_slots, EnvironmentConfig(**settings))


def play(environment: EnvironmentAdapter, num_steps: int) -> None:
    environment.reset(0)
    for _ in range(num_steps):
        environment.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("backend", ["auto", "sync", "async"])
def test_wrappers_are_put_around_each_slot_in_order(backend: Any) -> None:
    """Seen to fail with the first wrapper put outermost."""
    wrappers = (f"{HERE}:Doubled", f"{HERE}:plus_one")
    plain = make("CartPole-v1", env_backend="sync")
    wrapped = make("CartPole-v1", env_backend=backend, env_wrapper=wrappers)

    expected = plain.reset(3)["observation"] * 2 + 1
    observation = wrapped.reset(3)["observation"].copy()
    plain.close()
    wrapped.close()

    np.testing.assert_allclose(observation, expected, rtol=1e-6)


def test_env_kwargs_reach_the_environment() -> None:
    """FrozenLake slips unless it is told not to. Seen to fail with the arguments left out."""
    environment = make("FrozenLake-v1", 16, env_kwargs='{"is_slippery": false}')
    environment.reset(0)

    step = environment.step(np.full(16, 2))
    environment.close()

    assert (step.observations["observation"].argmax(1) == 1).all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"env_wrapper": ("no_such_module_:X",)}, "no_such_module_ cannot be imported.*PYTHONPATH"),
        ({"env_wrapper": (f"{HERE}:Dubled",)}, "has no Dubled; close matches: Doubled"),
        ({"env_wrapper": (f"{HERE}:raising",)}, "raising.*ZeroDivisionError"),
        ({"env_wrapper": (f"{HERE}:forgetful",)}, "it returned NoneType, no gymnasium.Env"),
        ({"env_wrapper": (f"{HERE}:number",)}, "number is no class or function"),
        ({"env_kwargs": '{"colour": 3}'}, "env_kwargs.*CartPole-v1 takes.*colour"),
        ({"env_wrapper": (f"{HERE}:Doubled",), "env_backend": "entry-point"}, "single environm"),
        ({"env_kwargs": '{"a": 1}', "env_backend": "entry-point"}, "env_backend.*single environm"),
    ],
)
@pytest.mark.parametrize("backend", ["sync", "async"])
def test_option_that_does_not_work_says_what_to_do(
    settings: dict[str, Any], expected: str, backend: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        make("CartPole-v1", **({"env_backend": backend} | settings))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"env_kwargs": "{is_slippery: false}"}, "env_kwargs.*JSON object in quotes"),
        ({"env_kwargs": "[1]"}, "JSON object"),
        ({"env_wrapper": ("ImgObsWrapper",)}, "module:Wrapper"),
    ],
)
def test_option_of_a_wrong_form_is_refused_with_the_settings(
    settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        EnvironmentConfig(**settings)


@pytest.mark.parametrize(
    ("env_id", "way_round"),
    [("ALE/Pong-v5", "ale_py:ALE/Pong-v5 --env-backend sync"), ("MinAtar/Breakout-v1", "no Gym")],
)
def test_wrapper_of_native_environment_is_refused_with_the_way_round(
    env_id: str, way_round: str
) -> None:
    with pytest.raises(ConfigError, match=f"env_wrapper.*{way_round}"):
        make(env_id, env_wrapper=(f"{HERE}:Doubled",))


def test_raw_atari_takes_wrappers() -> None:
    """The way round that the refusal names."""
    environment = make(
        "ale_py:ALE/Pong-v5",
        env_backend="sync",
        env_kwargs='{"frameskip": 4}',
        env_wrapper=("gymnasium.wrappers:GrayscaleObservation",),
    )
    shape = environment.reset(0)["observation"].shape
    environment.close()

    assert shape == (2, 210, 160)


def test_options_never_come_from_the_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the learner's settings taken where the actor has none."""
    theirs = EnvironmentConfig(
        env="Bad-v0", env_kwargs='{"code": 1}', env_wrapper=("os:remove",), atari_noop_max=7
    )
    message = pack_environment_options(theirs)
    assert not {"env_kwargs", "env_wrapper"} & set(message.DESCRIPTOR.fields_by_name)
    actor = Actor(ActorConfig(server="127.0.0.1:1", env="CartPole-v1", actor_id="a"))
    defaults = types.SimpleNamespace(environment=theirs, num_slots=1)
    monkeypatch.setattr(actor._client, "get_defaults", lambda: defaults)
    made: list[EnvironmentConfig] = []

    def make(
        env_id: str, num_slots: int, config: EnvironmentConfig, num_threads: int
    ) -> EnvironmentAdapter:
        made.append(config)
        return make_environment(env_id, num_slots, config, num_threads)

    monkeypatch.setattr("impala_actor.acting.actor_loop.make_environment", make)

    actor._make_environment(EnvironmentWatchdog(0.0)).close()
    actor.abandon()

    (config,) = made
    assert (config.env, config.env_kwargs, config.env_wrapper) == ("CartPole-v1", "", ())
    assert config.atari_noop_max == 7


def test_command_line_takes_several_wrappers_and_arguments() -> None:
    argv = [
        "--env",
        "CartPole-v1",
        "--env-wrapper",
        "m:A",
        "m:B",
        "--env-kwargs",
        '{"a": [1, null]}',
    ]

    config = parse_train_config("impala-train", argv, "").config.environment

    assert config.env_wrapper == ("m:A", "m:B")
    assert config.parsed_env_kwargs == {"a": [1, None]}


def test_local_actors_get_the_options() -> None:
    config = TrainConfig(
        environment=EnvironmentConfig(
            env="CartPole-v1", env_kwargs='{"a": 1}', env_wrapper=("m:A", "m:B")
        )
    )

    command = _command(config, "127.0.0.1:7", "actor-0")

    assert command[command.index("--env-kwargs") + 1] == '{"a": 1}'
    at = command.index("--env-wrapper")
    assert command[at : at + 4] == ["--env-wrapper", "m:A", "m:B", "--log-format"]


@pytest.mark.parametrize("backend", ["auto", "async"])
def test_registered_object_plays_with_wrappers(backend: Any) -> None:
    register_environment("object:counting", lambda: CountingEnv(3))
    environment = make("object:counting", env_backend=backend, env_wrapper=(f"{HERE}:Doubled",))

    environment.reset(0)
    step = environment.step(np.zeros(2, np.int64))
    observation = step.observations["observation"].copy()
    environment.close()

    assert observation[:, 0].tolist() == [2, 2]
    with pytest.raises(ConfigError, match="its maker takes no arguments"):
        make("object:counting", env_kwargs='{"a": 1}')
    with pytest.raises(ConfigError, match="auto, sync or async"):
        make("object:counting", env_backend="entry-point")


@pytest.mark.parametrize(
    ("env_id", "settings", "leaves", "action_kind"),
    [
        ("Pendulum-v1", {}, {"observation": (3,)}, "gaussian"),
        ("HalfCheetah-v5", {}, {"observation": (17,)}, "gaussian"),
        (EMPTY_ROOM, {"env_wrapper": (IMG_OBS,)}, {"observation": (7, 7, 3)}, "categorical"),
        (
            EMPTY_ROOM,
            {"env_wrapper": ("minigrid.wrappers:FullyObsWrapper", f"{HERE}:without_mission")},
            {"observation/direction": (4,), "observation/image": (5, 5, 3)},
            "categorical",
        ),
    ],
)
def test_environment_of_other_packages_is_made_and_stepped(
    env_id: str, settings: dict[str, Any], leaves: dict[str, Any], action_kind: str
) -> None:
    def without_mission(env: Any) -> Any:
        return gymnasium.wrappers.FilterObservation(env, ["direction", "image"])

    sys.modules[HERE].without_mission = without_mission  # type: ignore[attr-defined]
    environment = make(env_id, **settings)

    environment.reset(1)
    action = environment.spec.action
    assert [part.kind for part in action.parts] == [action_kind]
    for _ in range(3):
        actions = np.zeros((2, *action.tensor.shape), action.tensor.dtype)
        step = environment.step(actions)
    environment.close()

    assert {x.name: x.shape for x in environment.spec.observation_leaves} == leaves
    assert {name: leaf.shape[1:] for name, leaf in step.observations.items()} == leaves
    assert step.rewards.shape == (2,)


def test_minigrid_as_it_is_has_no_mission() -> None:
    environment = make(EMPTY_ROOM)
    names = [leaf.name for leaf in environment.spec.observation_leaves]
    environment.close()

    assert names == ["observation/direction", "observation/image"]


def test_minigrid_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(MissingExtraError, match="minigrid"):
        make("MiniGrid-Unheard-v0")


class FourTuple(gymnasium.Env[Any, Any]):
    """Gymnasium's class, the old interface."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, _: Any) -> Any:
        return np.zeros(2, np.float32), 0.0, False, {}


class OldReset(FourTuple):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros(3, np.float32)


class PairReset(FourTuple):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), 0.5


class SeedlessReset(FourTuple):
    def reset(self) -> Any:  # type: ignore[override]
        return np.zeros(2, np.float32)


@pytest.fixture
def gym(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package called gym with what matters of its classes."""
    fake = types.ModuleType("gym")
    env = type("Env", (), {"__module__": "gym.core"})
    box = type("Box", (), {"__module__": "gym.spaces.box", "shape": (2,), "dtype": np.float32})
    fake.Env, fake.Box = env, box  # type: ignore[attr-defined]
    registration = types.SimpleNamespace(registry={"OldPole-v0": object()})
    fake.envs = types.SimpleNamespace(registration=registration)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gym", fake)
    return fake


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        (FourTuple, "step returned 4 values"),
        (lambda: gymnasium.wrappers.TimeLimit(FourTuple(), 5), "expected 5, got 4"),
        (OldReset, "reset returned a single ndarray"),
        (lambda: Doubled(OldReset()), "reset failed with"),
        (PairReset, "reset returned 2 values, the second a float, not"),
        (SeedlessReset, "reset takes no seed"),
    ],
)
@pytest.mark.parametrize("backend", ["sync", "async"])
def test_old_interface_is_told_with_what_was_seen(kind: Any, seen: str, backend: Any) -> None:
    register_environment("object:old", kind)
    environment = make("object:old", env_backend=backend)

    with pytest.raises(UnknownEnvironmentError, match=f"{seen}.*GymV21Compatibility"):
        play(environment, 1)
    environment.close()


def test_environment_of_old_gym_is_told_from_its_class(gym: Any) -> None:
    register_environment("object:old", type("OldPole", (gym.Env,), {"__module__": "my_envs"}))

    with pytest.raises(UnknownEnvironmentError, match=r"my_envs\.OldPole derives from gym\.Env"):
        make("object:old")


def test_registered_id_of_an_old_gym_class_is_told(gym: Any) -> None:
    gymnasium.register("OldClass-v0", entry_point=type("OldPole", (gym.Env,), {}))

    try:
        with pytest.raises(UnknownEnvironmentError, match=r"OldClass-v0.*gymnasium\.Env"):
            make("OldClass-v0")
    finally:
        del gymnasium.registry["OldClass-v0"]


def test_id_that_only_old_gym_knows_is_told(gym: Any) -> None:
    with pytest.raises(UnknownEnvironmentError, match=r"registered with the old Gym.*shimmy"):
        make("OldPole-v0")


def test_space_of_old_gym_is_told(gym: Any) -> None:
    kind = type("OldSpace", (FourTuple,), {"observation_space": gym.Box()})
    register_environment("object:old", kind)

    with pytest.raises(UnsupportedSpaceError, match="a space of the old Gym package"):
        make("object:old")


def test_wrapper_in_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrappers_of_mine.py").write_text("def same(env):\n    return env\n")
    monkeypatch.chdir(tmp_path)

    make("CartPole-v1", env_wrapper=("wrappers_of_mine:same",)).close()


def test_late_break_of_the_space_in_a_wrapper_is_named() -> None:
    class Late(gymnasium.Wrapper[Any, Any, Any, Any]):
        count = 0

        def step(self, action: Any) -> Any:
            self.count += 1
            observation, *rest = self.env.step(action)
            return (observation if self.count < 4 else observation[:2], *rest)

    sys.modules[HERE].Late = Late  # type: ignore[attr-defined]
    environment = make("CartPole-v1", env_wrapper=(f"{HERE}:Late",))

    with pytest.raises(SpecMismatchError, match=r"observation\.shape.*\(4,\), got \(2,\)"):
        play(environment, 5)
