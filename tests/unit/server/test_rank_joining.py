"""What the ranks compare before they begin, and the places that torchrun gives."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from running_server import make_config

from impala_common.errors import ConfigError
from impala_server.ranks.joining import RankFacts, require_equal
from impala_server.ranks.place import ALONE, RankPlace
from impala_server.ranks.rank_settings import fit_to_rank

FACTS = RankFacts.of(make_config(), torch.device("cpu"))
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}


def test_ranks_of_one_kind_are_let_in() -> None:
    require_equal([FACTS, dataclasses.replace(FACTS, device="another host cuda:0")])


@pytest.mark.parametrize("name", ["version", "torch_version"])
def test_rank_of_another_version_is_refused(name: str) -> None:
    other = dataclasses.replace(FACTS, **{name: "9.9"})

    with pytest.raises(ConfigError, match=rf"{name} of learner rank 1.*9\.9"):
        require_equal([FACTS, other])


def test_rank_with_another_batch_size_is_refused_and_with_another_seed_is_not() -> None:
    require_equal([FACTS, RankFacts.of(make_config(job={"seed": 9}), torch.device("cpu"))])
    other = RankFacts.of(make_config(rollout={"batch_size": 4}), torch.device("cpu"))

    with pytest.raises(ConfigError, match=r"batch_size of learner rank 1.*8, as rank 0 has it"):
        require_equal([FACTS, other])


def test_place_is_what_torchrun_says_and_alone_without_it() -> None:
    without = {name: value for name, value in TORCHRUN.items() if name != "TORCHELASTIC_RUN_ID"}

    place = RankPlace.from_torchrun(TORCHRUN)

    assert (place.rank, place.num_ranks, place.local_rank, place.num_local) == (3, 4, 1, 2)
    assert RankPlace.from_argument(place.to_argument()) == place
    assert RankPlace.from_torchrun(without) == ALONE
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        RankPlace.from_torchrun(TORCHRUN | {"WORLD_SIZE": ""})


def test_ranks_of_a_machine_get_ports_of_their_own_and_other_seeds() -> None:
    config = make_config(transport={"port": 50051}, evaluation={"eval_interval_steps": 100})
    places = [RankPlace(rank=rank, num_ranks=2, local_rank=rank, num_local=2) for rank in range(2)]

    first, second = (fit_to_rank(config, place) for place in places)

    assert (first.transport.port, second.transport.port) == (50051, 50052)
    assert first.job.seed == config.job.seed != second.job.seed
    assert (first.evaluation.eval_interval_steps, second.evaluation.eval_interval_steps) == (100, 0)
    assert first.ranks.learner_ranks == second.ranks.learner_ranks == 2
