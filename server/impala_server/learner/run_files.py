"""What an existing run tells a learner that starts in it."""

from __future__ import annotations

import json

from impala_common.checkpoints import Checkpoint, CheckpointStore
from impala_common.errors import CheckpointError
from impala_common.run_directory import RunDirectory
from impala_common.specs import EnvironmentSpec


def load_run_files(
    run: RunDirectory, store: CheckpointStore
) -> tuple[EnvironmentSpec | None, Checkpoint | None]:
    """Returns (environment, newest good checkpoint), or Nones for a run that is new.

    Raises:
      CheckpointError: specs.json or all checkpoints are damaged.
    """
    if not run.specs_path.exists():
        return None, None
    try:
        specs = json.loads(run.specs_path.read_text())
        environment = EnvironmentSpec.from_json(specs["environment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run.specs_path} cannot be read: expected what an earlier learner of this run "
            f"wrote ({error})"
        ) from error
    return environment, store.load_newest() if store.names() else None
