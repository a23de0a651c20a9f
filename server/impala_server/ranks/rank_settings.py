"""Settings and folder of one rank: what differs from those of rank 0. Knows no torch."""

from __future__ import annotations

import dataclasses

import numpy as np

from impala_common.config import EvaluationConfig, TrainConfig
from impala_common.errors import ConfigError
from impala_common.run.run_directory import RunDirectory
from impala_server.ranks.place import RankPlace


def rank_folder(run: RunDirectory, rank: int) -> RunDirectory:
    """Returns the folder in which a rank keeps its metrics and addresses: RUN itself for rank 0."""
    return run if rank == 0 else RunDirectory(run.path / "ranks" / f"rank-{rank:03d}")


def fit_to_rank(config: TrainConfig, place: RankPlace) -> TrainConfig:
    """Returns the settings of a rank.

    All ranks have the same, except that each draws other random numbers for its actors, that ranks
    of one machine listen on successive ports, and that rank 0 alone evaluates and writes to
    trackers.

    Raises:
      ConfigError: `learner_ranks` says another number.
    """
    ranks = config.ranks
    if ranks.learner_ranks not in (1, place.num_ranks):
        raise ConfigError(
            "--learner-ranks",
            ranks.learner_ranks,
            f"{place.num_ranks}, as torchrun started",
            "leave it out with torchrun",
        )
    config = dataclasses.replace(
        config, ranks=dataclasses.replace(ranks, learner_ranks=place.num_ranks)
    )
    if place.leads:
        return config
    seed = np.random.SeedSequence([config.job.seed, place.rank]).generate_state(1, np.uint32)[0]
    transport, checkpoint, admin = config.transport, config.checkpoint, config.admin
    return dataclasses.replace(
        config,
        job=dataclasses.replace(config.job, seed=int(seed)),
        transport=dataclasses.replace(transport, port=_next(transport.port, place)),
        evaluation=EvaluationConfig(),
        checkpoint=dataclasses.replace(
            checkpoint,
            wandb_project="",
            mlflow_experiment="",
            tensorboard=False,
            prometheus_port=_next(checkpoint.prometheus_port, place),
        ),
        # A socket in the rank's folder, for its own actors; a port is rank 0's.
        admin=dataclasses.replace(
            admin, admin_address=admin.admin_address if admin.admin_address == "none" else "unix"
        ),
    )


def _next(port: int, place: RankPlace) -> int:
    """Returns the port of a rank; 0 and -1 mean any free one."""
    return port + place.local_rank if port > 0 else port
