"""MinAtar's five games, stepped by a small loop of this project.

Ids are MinAtar's: MinAtar/Breakout-v0 with all six actions, -v1 with the game's
minimal action set. The games are MinAtar's code, with its sticky actions (.1) and
difficulty ramp. Its `Environment` wrapper is not used: importing it pulls in seaborn
and pandas (a second and over 100 MB per actor), and it does no more than
the sticky actions below. There is no time limit.
"""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_actor.environments.adapter import EnvironmentAdapter
from impala_common.errors import MissingExtraError, UnknownEnvironmentError
from impala_common.spec.specs import OBSERVATION, ActionSpec, EnvironmentSpec, TensorSpec

PREFIX = "MinAtar/"
EXTRA = "minatar"
STICKY_ACTION_PROBABILITY = 0.1
_NUM_ACTIONS = 6
_CELL_PIXELS = 32
# Black, then one colour for each channel (at most 10): Okabe and Ito's colour-blind safe palette.
_COLOURS = np.array(
    [
        (0, 0, 0), (86, 180, 233), (240, 228, 66), (213, 94, 0), (0, 158, 115), (204, 121, 167),
        (230, 159, 0), (0, 114, 178), (255, 255, 255), (153, 153, 153), (136, 34, 85),
    ],
    np.uint8,
)  # fmt: skip
_MODULES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}


class MinAtarStep(NamedTuple):
    """Return value of Gymnasium's VectorEnv.step."""

    observation: NDArray[np.bool_]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: dict[str, Any]  # Any: Gymnasium's type; always empty here


class MinAtarGame:
    """One game with sticky actions and its own generator.

    Draws match MinAtar's `Environment`: one number per step, from the generator that the game uses
    too.
    """

    def __init__(self, module: Any) -> None:  # Any: MinAtar has no types
        self._game = module.Env(ramping=True)
        self.shape: tuple[int, ...] = tuple(self._game.state_shape())
        self.minimal_actions: list[int] = self._game.minimal_action_set()
        self.state = self._game.state
        self._random = np.random.RandomState()
        self._last_action = 0

    def seed(self, seed: int) -> None:
        """Seeds the generator."""
        self._random = self._game.random = np.random.RandomState(seed)
        self._last_action = 0

    def reset(self) -> None:
        """Starts an episode. The last action stays in sticky memory, as in MinAtar."""
        self._game.reset()

    def act(self, action: int) -> tuple[float, bool]:
        """Takes one of the six actions, or the last one again; returns reward and end."""
        if self._random.rand() < STICKY_ACTION_PROBABILITY:
            action = self._last_action
        self._last_action = action
        reward, is_over = self._game.act(action)
        return reward, is_over


class MinAtarVectorEnv:
    """N games with NEXT_STEP autoreset; fresh arrays at each step."""

    def __init__(self, games: list[MinAtarGame], action_set: list[int]) -> None:
        self.num_envs = len(games)
        self.metadata = {"render_fps": 10}
        self._games = games
        self._action_set = action_set
        self._shape = (len(games), *games[0].shape)
        self._is_over = [False] * len(games)

    def reset(
        self, *, seed: list[int] | None = None, options: None = None
    ) -> tuple[NDArray[np.bool_], dict[str, Any]]:
        """Starts an episode in every slot, with one seed per slot."""
        observation = np.empty(self._shape, np.bool_)
        for slot, game in enumerate(self._games):
            if seed is not None:
                game.seed(seed[slot])
            game.reset()
            observation[slot] = game.state()
        self._is_over = [False] * self.num_envs
        return observation, {}

    def step(self, actions: NDArray[np.int64]) -> MinAtarStep:
        """Takes one step in every slot, or resets those whose game was over."""
        observation = np.empty(self._shape, np.bool_)
        rewards = [0.0] * self.num_envs
        is_over, action_set = self._is_over, self._action_set
        for slot, (game, action) in enumerate(zip(self._games, actions.tolist(), strict=True)):
            if is_over[slot]:
                game.reset()
                is_over[slot] = False
            else:
                rewards[slot], is_over[slot] = game.act(action_set[action])
            observation[slot] = game.state()
        return MinAtarStep(
            observation,
            np.array(rewards, np.float32),
            np.array(is_over, np.bool_),
            np.zeros(self.num_envs, np.bool_),
            {},
        )

    def render(self) -> list[NDArray[np.uint8]]:
        """Returns uint8 [10 * 32, 10 * 32, 3] per slot: a colour for each channel."""
        return [_draw(game.state()) for game in self._games]

    def close(self) -> None:
        """Does nothing: there are no resources to free."""


def validate_game(env_id: str) -> None:
    """Raises UnknownEnvironmentError unless there is such a game and version."""
    name, _dash, version = env_id.removeprefix(PREFIX).partition("-")
    if name not in _MODULES or version not in ("v0", "v1"):
        known = [f"{PREFIX}{game}-v1" for game in _MODULES]
        close = difflib.get_close_matches(env_id, known, n=2, cutoff=0.6) or known
        raise UnknownEnvironmentError(
            f"MinAtar has no {env_id!r}; close matches: {', '.join(close)} "
            "(-v1 has the minimal action set, -v0 all six actions)"
        )


def make_minatar_environment(env_id: str, num_slots: int) -> EnvironmentAdapter:
    """Makes `num_slots` slots of a MinAtar game.

    Raises:
      UnknownEnvironmentError: no such game or version.
      MissingExtraError: MinAtar is not installed.
    """
    validate_game(env_id)
    name, _dash, version = env_id.removeprefix(PREFIX).partition("-")
    module = _load_module(env_id, _MODULES[name])
    games = [MinAtarGame(module) for _slot in range(num_slots)]
    action_set = games[0].minimal_actions if version == "v1" else list(range(_NUM_ACTIONS))
    leaf = TensorSpec(OBSERVATION, games[0].shape, "bool", role="image_hwc")
    spec = EnvironmentSpec((leaf,), ActionSpec.discrete(len(action_set)))
    return EnvironmentAdapter(MinAtarVectorEnv(games, action_set), spec)


def _draw(state: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns a picture of a state, bool [10, 10, C]; a later channel covers an earlier one."""
    num_channels = state.shape[2]
    topmost = np.max(state * (np.arange(num_channels) + 1), axis=2)
    picture: NDArray[np.uint8] = _COLOURS[topmost]
    return picture.repeat(_CELL_PIXELS, axis=0).repeat(_CELL_PIXELS, axis=1)


def _load_module(env_id: str, module_name: str) -> Any:  # Any: a module of MinAtar
    """Loads one game's module from its file, without running minatar/__init__.py."""
    package = importlib.util.find_spec("minatar")
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError(env_id, EXTRA)
    path = Path(package.submodule_search_locations[0]) / "environments" / f"{module_name}.py"
    spec = importlib.util.spec_from_file_location(f"impala_minatar_{module_name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
