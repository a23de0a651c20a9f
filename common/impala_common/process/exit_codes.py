"""Exit codes of all commands, and the error classes they belong to.

0 is success. 1 is a bug of this project. Other codes follow sysexits.h where it has the case, so
that process managers can tell "try again" (75) from "fix the command" (77, 78) without reading
text.
"""

from __future__ import annotations

from impala_common import errors

OK = 0
INTERNAL = 1
USAGE = 2  # usual code of argument parsers
UNUSABLE_DATA = 65  # a checkpoint or file that cannot be used
UNAVAILABLE = 69  # learner not reachable within the deadline
TEMPORARY = 75  # a restart may work
NO_PERMISSION = 77  # banned, or not allowed to do this; TLS or token do not fit
CONFIG = 78  # a setting, environment or space that cannot work
INTERRUPTED = 130  # second Ctrl-C

_CODES: dict[type[errors.ImpalaError], int] = {
    errors.ConfigError: CONFIG,
    errors.UnsupportedSpaceError: CONFIG,
    errors.UnknownEnvironmentError: CONFIG,
    errors.MissingExtraError: CONFIG,
    errors.SpecMismatchError: CONFIG,
    errors.ModelError: CONFIG,
    errors.ProtocolMismatchError: CONFIG,
    errors.SecurityError: NO_PERMISSION,
    errors.CheckpointError: UNUSABLE_DATA,
    errors.LearnerUnavailableError: UNAVAILABLE,
    errors.RunFinishedError: OK,
    errors.InvalidRequestError: USAGE,
    errors.InvalidResponseError: UNUSABLE_DATA,
    errors.NotFoundError: USAGE,
    errors.AlreadyExistsError: USAGE,
    errors.IllegalTransitionError: TEMPORARY,
    errors.RunMismatchError: TEMPORARY,
    errors.BannedError: NO_PERMISSION,
    errors.CapacityError: TEMPORARY,
    errors.RunInUseError: TEMPORARY,
    errors.AddressInUseError: TEMPORARY,
    errors.TrainingDivergedError: UNUSABLE_DATA,
    errors.DeviceMemoryError: CONFIG,
    errors.EnvironmentFailedError: TEMPORARY,
    errors.RankLostError: TEMPORARY,
}


def exit_code_of(error: BaseException) -> int:
    """Returns the exit code of a command that ends with `error`."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    return INTERNAL
