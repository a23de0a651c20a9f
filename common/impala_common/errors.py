"""All errors of this project: one class tree, independent of the transport.

Every class has a constant `reason` in UPPER_SNAKE. One table, `impala_common.rpc.errors`, gives the
wire form of each reason; `impala_common.process.exit_codes` gives the exit codes of commands.
Programming mistakes stay `TypeError` and `AssertionError`.
"""

from __future__ import annotations

from impala_common.process.installation import way_to_install

FOREIGN_ERRORS = (Exception, SystemExit)
"""What code of users may raise: sys.exit() of a simulator is not a wish to end our process."""


class ImpalaError(Exception):
    """Base of all errors that users of this project can get."""

    reason = "INTERNAL"


class ConfigError(ImpalaError):
    """A setting breaks a rule: name, value, rule and consequence are in the text."""

    reason = "CONFIG"

    def __init__(self, name: str, value: object, rule: str, consequence: str = "") -> None:
        self.name = name
        self.value = value
        self.rule = rule
        self.consequence = consequence
        tail = f": {consequence}" if consequence else ""
        super().__init__(f"{name} is {value!r} but must be {rule}{tail}")


class UnsupportedSpaceError(ImpalaError):
    """An action or observation space this version cannot train on."""

    reason = "UNSUPPORTED_SPACE"


class UnknownEnvironmentError(ImpalaError):
    """No environment of that name can be made on this machine."""

    reason = "UNKNOWN_ENVIRONMENT"


class MissingExtraError(ImpalaError):
    """An optional package is needed; the text names the pip extra."""

    reason = "MISSING_EXTRA"

    def __init__(self, what: str, extra: str) -> None:
        self.what = what
        self.extra = extra
        super().__init__(
            f"{what} needs an optional package: {way_to_install(extra)} (extra impala-rl[{extra}])"
        )


class SpecMismatchError(ImpalaError):
    """Two sides disagree about the shape of the data; the first differing field is named."""

    reason = "SPEC_MISMATCH"

    def __init__(self, field: str, expected: object, actual: object) -> None:
        self.field = field
        self.expected = expected
        self.actual = actual
        super().__init__(f"{field}: expected {expected}, got {actual}")


class ModelError(ImpalaError):
    """An own network cannot be imported or made, or breaks the contract of networks."""

    reason = "MODEL"


class InvalidUnrollError(ImpalaError):
    """An unroll that breaks its specification, is damaged, or holds numbers out of bounds.

    Attributes:
      is_absurd: whether a number is NaN, infinite or out of bounds. Such messages count towards
        the quarantine of their actor.
    """

    reason = "INVALID_UNROLL"

    def __init__(self, text: str, is_absurd: bool = False) -> None:
        """Describes the first fault of a message."""
        super().__init__(text)
        self.is_absurd = is_absurd


class InvalidRequestError(ImpalaError):
    """A request that breaks the protocol."""

    reason = "INVALID_REQUEST"


class InvalidResponseError(ImpalaError):
    """A response of the learner that breaks the protocol."""

    reason = "INVALID_RESPONSE"


class DamagedRequestError(InvalidRequestError):
    """A request whose bytes do not parse: from this project's clients, damaged on its way."""

    reason = "DAMAGED_REQUEST"


class ProtocolMismatchError(ImpalaError):
    """The other side speaks another version of the protocol."""

    reason = "PROTOCOL_MISMATCH"


class StaleSessionError(ImpalaError):
    """The session is not the newest one, or belongs to another learner life: register again."""

    reason = "STALE_SESSION"


class CapacityError(ImpalaError):
    """The learner has no room for one more actor."""

    reason = "CAPACITY"


class LearnerUnavailableError(ImpalaError):
    """The learner cannot be reached, is starting, stopping or has finished."""

    reason = "LEARNER_UNAVAILABLE"


class RunFinishedError(ImpalaError):
    """The run has finished: actors and evaluators can end."""

    reason = "RUN_FINISHED"


class SecurityError(ImpalaError):
    """The other end is not authenticated, or not permitted to do this; waiting does not help."""

    reason = "SECURITY"


class TlsError(SecurityError):
    """The two ends do not agree on TLS; the text names the cause and what to do."""

    reason = "TLS"


class UnauthenticatedError(SecurityError):
    """A call without a token, or with an unknown one."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(SecurityError):
    """A call whose token is valid, but not for this method."""

    reason = "PERMISSION_DENIED"


class QueueClosedError(ImpalaError):
    """The queue was closed while waiting on it: the process is ending."""

    reason = "QUEUE_CLOSED"


class CheckpointError(ImpalaError):
    """A checkpoint is missing, damaged, or belongs to another run or network."""

    reason = "CHECKPOINT"


class CheckpointWriteError(CheckpointError):
    """A checkpoint could not be written; training goes on, earlier ones are untouched."""

    reason = "CHECKPOINT_WRITE"


class CheckpointUnreadableError(CheckpointWriteError):
    """A checkpoint was written, or would be, that nobody could read again: an alarm."""

    reason = "CHECKPOINT_UNREADABLE"


class IllegalTransitionError(ImpalaError):
    """Not allowed in the learner's present state; the text names the state and what it allows."""

    reason = "ILLEGAL_TRANSITION"


class RunMismatchError(ImpalaError):
    """A command for an earlier life of the learner."""

    reason = "RUN_MISMATCH"


class NotFoundError(ImpalaError):
    """No checkpoint, parameter or actor of that name; the text lists the existing ones."""

    reason = "NOT_FOUND"


class AlreadyExistsError(ImpalaError):
    """The name is taken."""

    reason = "ALREADY_EXISTS"


class BannedError(ImpalaError):
    """An administrator has banned this actor."""

    reason = "BANNED"


class RunInUseError(ImpalaError):
    """Another process works in the run directory."""

    reason = "RUN_IN_USE"


class AddressInUseError(ImpalaError):
    """The port is taken."""

    reason = "ADDRESS_IN_USE"


class TrainingDivergedError(ImpalaError):
    """Losses or gradients were not finite too many times in a row."""

    reason = "DIVERGED"


class DeviceMemoryError(ImpalaError):
    """The learner's device has no memory for an update."""

    reason = "DEVICE_MEMORY"


class RankLostError(ImpalaError):
    """A learner rank died, does not answer, or disagrees with the others; all ranks end."""

    reason = "RANK_LOST"


class EnvironmentFailedError(ImpalaError):
    """An environment raised, or did not return, too many times in a row."""

    reason = "ENVIRONMENT_FAILED"


class MessageError(ImpalaError):
    """A message between the server's processes that is not as declared: a programming mistake."""

    reason = "MESSAGE"


def rebuild_error(reason: str, text: str) -> ImpalaError:
    """Returns the error of this tree with this `reason` and `text`; ImpalaError if unknown."""
    kinds = [ImpalaError]
    for kind in kinds:  # grows during the loop: the whole tree, breadth first
        kinds += kind.__subclasses__()
    kind = next((kind for kind in kinds if kind.reason == reason), ImpalaError)
    error = kind.__new__(kind)
    ImpalaError.__init__(error, text)  # constructors differ; the text is complete already
    return error
