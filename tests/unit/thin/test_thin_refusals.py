"""impala-thin-actor says in one line what is wrong with its arguments and its environment.

Written to find: exceptions of environments, values outside their spaces, negative seeds and bytes
that are not UTF-8, all of which ended in a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from impala_thin import Environment, EpisodeLostError, RefusedError, SlotsClient, cli
from impala_thin.errors import EnvironmentFailedError
from impala_thin.gymnasium_driver import play_vector
from impala_thin.hello import ClientSettings

TEMPORARY, CONFIG = 75, 78


class Failing(gymnasium.Env[Any, Any]):
    """Fails in the call that is named."""

    observation_space = gymnasium.spaces.Dict(place=gymnasium.spaces.Discrete(3))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fails: str) -> None:
        self._fails = fails
        self._num_resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._num_resets += 1
        if self._fails == "reset" or (self._fails == "second reset" and self._num_resets > 1):
            raise ConnectionResetError("the simulator\nwent away")
        return {"place": np.int64(7 if self._fails == "space" else 0)}, {}

    def step(self, action: Any) -> Any:
        if self._fails == "exit":
            raise SystemExit(3)
        if self._fails == "step":
            raise ConnectionResetError("the simulator\nwent away")
        return {"place": np.int64(0)}, 0.0, False, False, {}


class Answering:
    """A client that needs no server; its server forgets the slots in the second call."""

    num_slots = 1

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.values = np.zeros(1, np.int64)
        self._num_calls = 0

    def act(self, given: Any) -> Any:
        self._num_calls += 1
        if self._num_calls == 2:
            raise EpisodeLostError([0])
        return self

    def settle(self) -> None:
        pass


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gymnasium.register("Failing-v0", entry_point=Failing, disable_env_checker=True)
    monkeypatch.setattr(cli, "_on_signals", lambda _stop: None)  # those of the tests stay
    yield
    gymnasium.registry.pop("Failing-v0")


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        ("reset", "raised in reset(): ConnectionResetError: the simulator went away"),
        ("second reset", "raised in reset(): ConnectionResetError: the simulator went away"),
        ("step", "raised in step(): ConnectionResetError: the simulator went away"),
        ("exit", "raised in step(): SystemExit: 3"),
    ],
)
def test_exception_of_the_environment_is_named_in_one_line(fails: str, text: str) -> None:
    environment = Environment.from_spaces(Failing.observation_space, Failing.action_space)
    vector_env: Any = SyncVectorEnv(
        [lambda: Failing(fails)], autoreset_mode=AutoresetMode.NEXT_STEP
    )
    client: Any = Answering(environment)

    with pytest.raises(EnvironmentFailedError) as caught:
        play_vector(vector_env, client)

    assert str(caught.value) == f"the environment {text}"


def test_observation_outside_its_space_is_named_in_one_line() -> None:
    environment = Environment.from_spaces(Failing.observation_space, Failing.action_space)
    vector_env: Any = SyncVectorEnv(
        [lambda: Failing("space")], autoreset_mode=AutoresetMode.NEXT_STEP
    )
    settings = ClientSettings(server="127.0.0.1:1", connect_timeout_s=0.1)

    with (
        SlotsClient(environment, settings=settings) as client,
        pytest.raises(EnvironmentFailedError, match="that is not in its space: ValueError: "),
    ):
        play_vector(vector_env, client)


def test_command_ends_as_one_whose_restart_may_work(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--server", "127.0.0.1:1", "--env", "Failing-v0"]

    assert cli.run([*arguments, "--env-kwargs", '{"fails": "reset"}']) == TEMPORARY

    assert capsys.readouterr().err == (
        "error: the environment raised in reset(): ConnectionResetError: the simulator went away\n"
    )


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--seed", "-1", "--seed is -1 but must be in [0, "),
        ("--slots", "0", "--slots is 0 but must be in [1, "),
        ("--episodes", "-1", "--episodes is -1 but must be in [0, "),
        ("--frame-stack", "99999999999999999999", "--frame-stack is 99999999999999999999 but must"),
        ("--client-id", "\udcff", "client_id is '\\udcff' but must be UTF-8"),
        ("--server-name", "\udcff", "server_name is '\\udcff' but must be UTF-8"),
        ("--server", "unix:/tmp/\udcff", "the server is 'unix:/tmp/\\udcff' but must be HOST:PORT"),
    ],
)
def test_argument_that_cannot_work_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], option: str, value: str, text: str
) -> None:
    options = {"--server": "127.0.0.1:1", "--env": "CartPole-v1", "--connect-timeout-s": "0.1"}
    options |= {option: value}

    assert cli.run([word for pair in options.items() for word in pair]) == CONFIG

    error = capsys.readouterr().err
    assert error.startswith(f"error: {text}")
    assert error.count("\n") == 1


def test_library_refuses_a_client_id_that_cannot_be_sent() -> None:
    with pytest.raises(RefusedError, match="client_id"):
        ClientSettings(server="127.0.0.1:1", client_id="\udcff")
