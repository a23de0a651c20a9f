"""The learner from start to end, in its own process or on a thread: one way to end."""

from __future__ import annotations

import logging

from impala_common.config import TrainConfig
from impala_common.errors import ImpalaError
from impala_common.run_directory import RunDirectory
from impala_server.learner.controller import Controller
from impala_server.storage.ends import ProcessEnds

_LOG = logging.getLogger(__name__)


def learner_main(config: TrainConfig, run: RunDirectory, ends: ProcessEnds) -> None:
    """Runs the learner to its end and reports how it ended to the supervisor."""
    try:
        Controller(config, run, ends).run()
    except ImpalaError as error:
        ends.supervisor.send("failed", reason=error.reason, text=str(error))
    except Exception as error:
        _LOG.exception("the learner failed")
        text = f"{type(error).__name__}: {error}"
        ends.supervisor.send("failed", reason="INTERNAL", text=text)
    finally:
        ends.close_pipes()
