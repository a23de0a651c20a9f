"""learner_main: runs the learner in its own process or on a thread, and reports how it ended."""

from __future__ import annotations

import logging

from impala_common.config import TrainConfig
from impala_common.errors import ImpalaError
from impala_common.models.passed_models import register_inherited_models
from impala_common.process.passed_objects import read_objects
from impala_common.run.run_directory import RunDirectory
from impala_server.learner.controller import Controller
from impala_server.messages import Failed
from impala_server.ranks.place import ALONE, RankPlace
from impala_server.storage.process_ends import ProcessEnds

_LOG = logging.getLogger(__name__)
_LAST_WORDS_S = 1.0


def learner_main(
    config: TrainConfig,
    run: RunDirectory,
    ends: ProcessEnds,
    objects_fd: int | None = None,
    place: RankPlace = ALONE,
) -> None:
    """Runs the learner and reports to the supervisor how it ended.

    Args:
      config: all settings.
      run: the run's folder.
      ends: pipes and shared blocks.
      objects_fd: inherited memory with the parent's networks, see `passed_objects`.
      place: among the learner ranks.
    """
    try:
        if objects_fd is not None:
            register_inherited_models(read_objects(objects_fd))
        _make_controller(config, run, ends, place).run()
    except Exception as error:
        if not isinstance(error, ImpalaError):
            _LOG.exception("the learner failed")
        ends.supervisor.send(Failed.of(error))
    finally:
        ends.close_pipes(_LAST_WORDS_S)


def _make_controller(
    config: TrainConfig, run: RunDirectory, ends: ProcessEnds, place: RankPlace
) -> Controller:
    if place.is_alone:
        return Controller(config, run, ends)
    # Imported late: torch.distributed is of no use to a learner alone.
    from impala_server.ranks.ranked_controller import RankedController

    return RankedController(config, run, ends, place)
