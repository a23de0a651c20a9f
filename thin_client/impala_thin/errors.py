"""All errors of thin actors."""

from __future__ import annotations


class ThinError(Exception):
    """Base of all errors here."""


class RefusedError(ThinError):
    """The policy server refuses this client; trying again does not help."""


class EnvironmentFailedError(ThinError):
    """The environment's own code raised, or gave what is not in its spaces."""


class ServerUnavailableError(ThinError):
    """The policy server could not be reached in time."""


class RunFinishedError(ThinError):
    """The run has finished: the client can end."""


class StoppedError(ThinError):
    """The client was asked to stop."""


class EpisodeLostError(ThinError):
    """The server has forgotten the slots: reset their environments and go on.

    Attributes:
      slots: indices of the slots.
    """

    def __init__(self, slots: list[int]) -> None:
        self.slots = slots
        super().__init__(f"the policy server has forgotten slots {slots}: reset them")
