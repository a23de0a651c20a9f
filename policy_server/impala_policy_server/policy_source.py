"""PolicySource: where the policy server's network comes from.

`LearnerSource` plays with the newest weights of a learner and sends it the unrolls; `FrozenSource`
plays with the weights of a file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from impala_common.errors import ImpalaError
from impala_common.spec.specs import EnvironmentSpec
from impala_policy_server.policy_engine import PolicyEngine

OnRoom = Callable[[], None]
OnEnd = Callable[[ImpalaError], None]


class PolicySource(ABC):
    """Makes the engine; runs on the event loop."""

    @abstractmethod
    def attach(self, on_room: OnRoom, on_end: OnEnd) -> None:
        """Sets what is called, on the event loop, when deciding may go on and at the end."""

    @abstractmethod
    async def open(self, environment: EnvironmentSpec, num_slots: int) -> PolicyEngine:
        """Returns the engine for an environment, which the first call makes.

        Args:
          environment: what a client plays.
          num_slots: slots of that client.

        Raises:
          SpecMismatchError: the run, or another client, has another environment.
          ImpalaError: there is no policy yet; a further call may find one.
        """

    @abstractmethod
    async def close(self) -> None:
        """Ends everything; what is complete is still sent."""
