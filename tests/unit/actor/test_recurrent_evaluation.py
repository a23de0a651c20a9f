"""Evaluation with memory: every decision is what the network gives over that episode alone.

"Planted" in a docstring names a fault that was put into the code to see the test fail.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from impala_actor.environments.slots import adapt
from impala_actor.evaluation.policy_evaluation import evaluate
from impala_common.config import ModelConfig
from impala_common.models.contract import ModelInputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.policy import Policy, PolicyStep
from impala_common.testing.environments import RepeatCueEnv

torch.set_num_threads(1)

NUM_SLOTS = 3


class RecordingPolicy(Policy):
    """Keeps what it was given and what it drew from, row by row."""

    def record(self) -> None:
        self.rows: list[tuple[NDArray[np.float32], NDArray[np.bool_], torch.Tensor]] = []
        self.feedback: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []

    def act(
        self,
        observations: Mapping[str, NDArray[np.float32]],
        is_first: NDArray[np.bool_],
        is_greedy: bool = False,
    ) -> PolicyStep:
        self.feedback.append((self.previous_action.copy(), self.previous_reward.copy()))
        step = super().act(observations, is_first, is_greedy)
        rows = observations["observation"].copy(), is_first.copy(), torch.tensor(step.logits)
        self.rows.append(rows)
        return step


@pytest.mark.parametrize("is_greedy", [False, True], ids=["sampled", "greedy"])
@pytest.mark.parametrize("recurrence", ["lstm", "gru"])
def test_evaluation_with_memory_equals_each_episode_on_its_own(
    recurrence: str, is_greedy: bool
) -> None:
    """Episodes end at different rows in different slots.

    Planted: is_first all False after the first row (no reset); the state that `act` returns not
    kept (nothing carried); is_first a row late; the learner's feedback kept over an episode's end.
    """
    vector = SyncVectorEnv(
        [lambda: RepeatCueEnv(delay=2, num_questions=3)] * NUM_SLOTS,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    with contextlib.closing(adapt(vector)) as environment:
        config = ModelConfig(
            recurrence=recurrence,  # type: ignore[arg-type]
            hidden_sizes=(8,),
            hidden_dim=8,
            init_method="identity",
            use_previous_action_and_reward=True,
        )
        spec = environment.spec
        model = make_model(resolve_model_spec(config, spec), spec, seed=3)
        policy = RecordingPolicy(model, spec.action, NUM_SLOTS, seed=4)
        policy.record()

        evaluate(policy, environment, 4 * NUM_SLOTS, seed=5, is_greedy=is_greedy)

    num_episodes = 0
    for slot in range(NUM_SLOTS):
        starts = [row for row, (_, is_first, _) in enumerate(policy.rows) if is_first[slot]]
        bounds = [*starts, len(policy.rows)]
        for start, end in itertools.pairwise(bounds):
            rows, feedback = policy.rows[start:end], policy.feedback[start:end]
            is_first = torch.zeros(end - start, 1, dtype=torch.bool)
            is_first[0] = True
            inputs = ModelInputs(
                {"observation": torch.tensor(np.stack([row[0][slot] for row in rows]))[:, None]},
                is_first,
                torch.tensor(np.stack([actions[slot] for actions, _ in feedback]))[:, None],
                torch.tensor(np.stack([rewards[slot] for _, rewards in feedback]))[:, None],
            )
            assert inputs.previous_actions[0] == inputs.previous_rewards[0] == 0
            with torch.no_grad():
                expected = model(inputs, model.initial_state(1)).policy_logits[:, 0]
            drawn_from = torch.stack([row[2][slot] for row in rows])
            torch.testing.assert_close(drawn_from, expected, rtol=1e-5, atol=1e-6)
            num_episodes += 1
    assert num_episodes >= 4 * NUM_SLOTS
    assert policy.agent_state[0].any()
