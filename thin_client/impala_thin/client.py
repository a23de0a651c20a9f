"""PolicyClient and AsyncPolicyClient: one environment and one policy server, in a dozen lines.

with PolicyClient("127.0.0.1:50052", Environment.simple((4,), num_actions=2)) as client:
    action = client.reset(observation)
    while True:
        observation, reward, terminated, truncated = play(action)
        action = client.step(observation, reward, terminated, truncated)
        if terminated or truncated:
            action = client.reset(first_observation())
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from impala_thin.async_slots_client import AsyncSlotsClient
from impala_thin.batches import make_single, take_single
from impala_thin.environment import Environment
from impala_thin.hello import ClientSettings
from impala_thin.slots_client import SlotsClient


class PolicyClient:
    """Plays one slot; blocking, for one thread."""

    def __init__(self, server: str, environment: Environment, **settings: Any) -> None:
        """Connects when first used.

        Args:
          server: HOST:PORT or unix:PATH.
          environment: what is played.
          **settings: further fields of ClientSettings.
        """
        self.slots = SlotsClient(environment, 1, settings=ClientSettings(server=server, **settings))

    def __enter__(self) -> PolicyClient:
        """Returns itself."""
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Closes."""
        self.close()

    def reset(self, observation: Any, mask: Any = None) -> Any:
        """Opens an episode and returns its first action.

        Args:
          observation: as the observation space is.
          mask: bool [P]: legal actions, of an environment with `has_mask`; None: all.

        Raises: as `step`.
        """
        given = make_single(observation, 0.0, False, False, True, mask)
        return take_single(self.slots.act(given))

    def step(
        self,
        observation: Any,
        reward: float,
        terminated: bool = False,
        truncated: bool = False,
        mask: Any = None,
    ) -> Any:
        """Tells what the last action led to, and returns the next one.

        After an end the action is None: `reset` comes next.

        Raises:
          EpisodeLostError: the server has forgotten the episode: reset the environment and go on
            with `reset`.
          ThinError: the server refuses this client, cannot be reached in time, or has finished.
        """
        given = make_single(observation, reward, terminated, truncated, False, mask)
        actions = self.slots.act(given)
        return None if terminated or truncated else take_single(actions)

    def close(self) -> None:
        """Says goodbye and disconnects."""
        self.slots.close()


class AsyncPolicyClient:
    """Plays one slot; for asyncio: `async with`, `await client.reset`, `await client.step`."""

    def __init__(self, server: str, environment: Environment, **settings: Any) -> None:
        """Connects when first used; made on the event loop. Arguments: as of PolicyClient."""
        chosen = ClientSettings(server=server, **settings)
        self.slots = AsyncSlotsClient(environment, 1, settings=chosen)

    async def __aenter__(self) -> AsyncPolicyClient:
        """Returns itself."""
        return self

    async def __aexit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Closes."""
        await self.close()

    async def reset(self, observation: Any, mask: Any = None) -> Any:
        """Opens an episode and returns its first action; see PolicyClient."""
        given = make_single(observation, 0.0, False, False, True, mask)
        return take_single(await self.slots.act(given))

    async def step(
        self,
        observation: Any,
        reward: float,
        terminated: bool = False,
        truncated: bool = False,
        mask: Any = None,
    ) -> Any:
        """Tells what the last action led to, and returns the next one; see PolicyClient."""
        given = make_single(observation, reward, terminated, truncated, False, mask)
        actions = await self.slots.act(given)
        return None if terminated or truncated else take_single(actions)

    async def close(self) -> None:
        """Says goodbye and disconnects."""
        await self.slots.close()
