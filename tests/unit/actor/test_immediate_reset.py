"""SAME_STEP, DISABLED and undeclared autoreset: the same unrolls as NEXT_STEP, without pauses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from impala_actor.acting.slotwise_builder import SlotwiseUnrollBuilder
from impala_actor.acting.unroll_builder import UnrollBuilder
from impala_actor.environments.adapter import EnvironmentAdapter
from impala_actor.environments.immediate_reset import ImmediateResetAdapter
from impala_actor.environments.slots import adapt
from impala_common.config.sections import ModelConfig
from impala_common.errors import SpecMismatchError, UnsupportedSpaceError
from impala_common.models.contract import AgentModel, ModelInputs
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.policy.policy import Policy
from impala_common.spec.specs import UnrollSpec
from impala_common.testing.environments import CountingEnv

torch.set_num_threads(1)

T = 20
LENGTHS = (3, 4, 1, 7)
AT_ONCE = pytest.mark.parametrize(
    "mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED], ids=lambda mode: mode.name
)


def make_counting(mode: AutoresetMode, is_terminated: bool = False) -> EnvironmentAdapter:
    makers = [lambda length=length: CountingEnv(length, is_terminated) for length in LENGTHS]
    return adapt(SyncVectorEnv(makers, copy=False, autoreset_mode=mode))


def make_network(environment: EnvironmentAdapter, recurrence: str = "lstm") -> AgentModel:
    config = ModelConfig(
        recurrence=recurrence,  # type: ignore[arg-type]
        feature_dim=8,
        hidden_dim=8,
        use_previous_action_and_reward=True,
    )
    return make_model(resolve_model_spec(config, environment.spec), environment.spec, 1)


def play(
    environment: EnvironmentAdapter, num_unrolls: int, length: int = T
) -> Iterator[dict[str, Any]]:
    """Yields unrolls as the actor's loop makes them."""
    model = make_network(environment)
    spec = UnrollSpec(length, environment.spec, model.agent_state_specs())
    num_slots = environment.num_slots
    policy = Policy(model, environment.spec.action, num_slots, 0)
    kind = SlotwiseUnrollBuilder if environment.resets_at_once else UnrollBuilder
    builder = kind(spec, num_slots)
    observations, is_first = environment.reset(0), np.ones(num_slots, np.bool_)
    for _ in range(num_unrolls):
        builder.begin(
            observations,
            is_first,
            policy.agent_state,
            policy.previous_action,
            policy.previous_reward,
        )
        while not builder.is_complete:
            decision = policy.act(observations, is_first)
            result = environment.step(decision.actions)
            builder.add(decision, result)
            policy.observe(result.rewards, result.is_first)
            observations, is_first = result.observations, result.is_first
        yield {name: array.copy() for name, array in builder.unrolls.leaves.items()}


@AT_ONCE
@pytest.mark.parametrize("is_terminated", [False, True])
@pytest.mark.parametrize("length", [1, 2, T])
def test_unrolls_lose_no_step_and_end_at_final_observations(
    mode: AutoresetMode, is_terminated: bool, length: int
) -> None:
    """Planted: a final observation in the last row not carried over; the reset observation in
    place of the final one; rows of slower slots left as they were.
    """
    environment = make_counting(mode, is_terminated)
    times: list[list[tuple[int, int]]] = [[] for _ in LENGTHS]

    for unroll in play(environment, 6 * T // length, length):
        assert unroll["is_padding"].shape == (length, len(LENGTHS))
        for slot, end in enumerate(LENGTHS):
            for t in range(length):
                time, episode, _ = unroll["observation"][t, slot].tolist()
                after = unroll["observation"][t + 1, slot].tolist()
                if unroll["is_padding"][t, slot]:
                    assert unroll["rewards"][t, slot] == 0
                    assert not unroll["terminated"][t, slot] | unroll["truncated"][t, slot]
                    continue
                times[slot].append((time, episode))
                is_over = time + 1 == end
                assert unroll["rewards"][t, slot] == 10 * (time + 1)
                assert unroll["terminated"][t, slot] == (is_over and is_terminated)
                assert unroll["truncated"][t, slot] == (is_over and not is_terminated)
                if is_over and is_terminated:
                    assert after[:2] == [0, episode + 1]
                    assert unroll["is_first"][t + 1, slot]
                else:
                    assert after == [time + 1, episode, unroll["actions"][t, slot]]
                    assert not unroll["is_first"][t + 1, slot]

    for end, seen in zip(LENGTHS, times, strict=True):
        assert seen == [(number % end, number // end) for number in range(len(seen))]
        assert len(seen) > T


@AT_ONCE
def test_rows_are_steps_but_for_one_for_each_truncation(mode: AutoresetMode) -> None:
    """Random lengths, as episodes have. Planted: a pause of all slots after each end."""
    makers = [RandomLengthEnv] * 8
    environment = adapt(SyncVectorEnv(makers, copy=False, autoreset_mode=mode))

    paddings = [unroll["is_padding"].mean() for unroll in play(environment, 30, 40)]

    # Episodes of 8 steps on average: 1 row in 9 is needed; 40 rows used to give 31 steps for two
    # slots, and fewer the more slots there were.
    assert np.mean(paddings) < 0.2


@AT_ONCE
@torch.no_grad()
def test_recurrent_network_computes_in_the_learner_what_the_actor_drew_from(
    mode: AutoresetMode,
) -> None:
    """Padding is neutral for memory, previous action and reward.

    Planted: slots that did not end consume their observation twice; row 0 with the state of after
    the reset where a final observation was carried over.
    """
    environment = make_counting(mode)
    model = make_network(environment)

    for unroll in play(environment, 12, 5):
        actions, rewards = unroll["actions"], unroll["rewards"]
        inputs = ModelInputs(
            {"observation": torch.tensor(unroll["observation"])},
            torch.tensor(unroll["is_first"]),
            torch.tensor(np.concatenate([unroll["previous_action"][None], actions])),
            torch.tensor(np.concatenate([unroll["previous_reward"][None], rewards])),
        )
        state = tuple(
            torch.tensor(unroll[spec.name]).transpose(0, 1).contiguous()
            for spec in model.agent_state_specs()
        )
        logits = model(inputs, state).policy_logits[:-1]
        counts = torch.tensor(~unroll["is_padding"])
        drawn_from = torch.tensor(unroll["behaviour_policy_logits"])
        torch.testing.assert_close(logits[counts], drawn_from[counts], rtol=1e-5, atol=1e-6)


class RandomLengthEnv(CountingEnv):
    """Episodes of 4 to 12 steps."""

    def _start(self) -> Any:
        self.episode_length = int(self.np_random.integers(4, 13))
        return super()._start()


class VectorClass(VectorEnv[Any, Any, Any]):
    """Two slots, truncated after 3 and 4 steps; resets and reports as told."""

    def __init__(
        self,
        metadata: Any,
        final_key: str | None,
        is_same_step: bool,
        has_list_infos: bool = False,
    ) -> None:
        self.metadata = metadata
        self.num_envs = 2
        self.single_observation_space = spaces.Box(0, 99, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, 2)
        self.action_space = batch_space(self.single_action_space, 2)
        self.final_key, self.is_same_step = final_key, is_same_step
        self.has_list_infos = has_list_infos
        self.t = self.ended = np.zeros(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.t, self.ended = np.zeros(2), np.zeros(2, np.bool_)
        return self.t[:, None].astype(np.float32), {}

    def step(self, actions: Any) -> Any:
        *result, infos = self._step(actions)
        if self.has_list_infos:
            infos = [
                {k: v[slot] for k, v in infos.items() if v[slot] is not None} for slot in (0, 1)
            ]
        return (*result, infos)

    def _step(self, actions: Any) -> Any:
        self.t = np.where(self.ended, 0, self.t + 1)
        ended = self.t == [3, 4]
        infos: dict[str, Any] = {}
        if ended.any() and self.final_key:
            final = np.full(2, None, object)
            for slot in np.flatnonzero(ended):
                final[slot] = np.array([self.t[slot]], np.float32)
            infos = {self.final_key: final, f"_{self.final_key}": ended.copy()}
        if self.is_same_step:
            self.t = np.where(ended, 0, self.t)
        else:
            self.ended = ended
        return self.t[:, None].astype(np.float32), np.ones(2), np.zeros(2, bool), ended, infos


@pytest.mark.parametrize("key", ["final_obs", "final_observation", "terminal_observation"])
@pytest.mark.parametrize("metadata", [{}, None, {"autoreset_mode": "SameStep"}])
@pytest.mark.parametrize("has_list_infos", [False, True])
def test_class_with_final_observations_in_its_infos_is_same_step(
    key: str, metadata: Any, has_list_infos: bool
) -> None:
    """Planted: a class that declares nothing is NEXT_STEP; infos that are lists are left out."""
    environment = adapt(
        VectorClass(metadata, key, is_same_step=True, has_list_infos=has_list_infos)
    )
    environment.reset(0)

    steps = [environment.step(np.zeros(2, np.int64)) for _ in range(4)]

    assert isinstance(environment, ImmediateResetAdapter)
    assert steps[2].final_observations is not None
    assert steps[2].final_observations["observation"][0] == 3
    assert steps[2].observations["observation"][:, 0].tolist() == [0, 3]
    assert not steps[3].is_padding.any()
    assert steps[3].observations["observation"][:, 0].tolist() == [1, 0]


def test_class_that_declares_nothing_and_has_no_final_observations_is_next_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = adapt(VectorClass({}, None, is_same_step=False))
    environment.reset(0)

    steps = [environment.step(np.zeros(2, np.int64)) for _ in range(5)]

    assert [step.is_padding.tolist() for step in steps] == [
        [False, False], [False, False], [False, False], [True, False], [False, True],
    ]  # fmt: skip
    assert all(step.final_observations is None for step in steps)
    assert caplog.text.count("declares no autoreset_mode") == 1


@pytest.mark.parametrize("has_list_infos", [False, True])
def test_class_that_says_next_step_and_resets_at_once_is_refused(has_list_infos: bool) -> None:
    environment = adapt(
        VectorClass(
            {"autoreset_mode": AutoresetMode.NEXT_STEP},
            "final_obs",
            is_same_step=True,
            has_list_infos=has_list_infos,
        )
    )
    environment.reset(0)

    for _ in range(2):
        environment.step(np.zeros(2, np.int64))

    with pytest.raises(SpecMismatchError, match=r"autoreset_mode.*expected SAME_STEP"):
        environment.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("metadata", [{}, {"autoreset_mode": AutoresetMode.NEXT_STEP}])
def test_class_that_resets_at_once_without_final_observations_is_noticed_by_its_rewards(
    metadata: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Before: nothing was said, and first steps of episodes were lost."""
    environment = adapt(VectorClass(metadata, None, is_same_step=True))
    environment.reset(0)

    for _ in range(12):
        environment.step(np.zeros(2, np.int64))

    said = [record.getMessage() for record in caplog.records if "a reward of" in record.message]
    assert len(said) == 1
    assert "a reward of 1 in the step after an end" in said[0]
    assert "autoreset_mode" in said[0]


class AlwaysEnds(VectorClass):
    """Ends both slots in every step, and says NEXT_STEP."""

    def _step(self, actions: Any) -> Any:
        observation = np.zeros((2, 1), np.float32)
        return observation, np.zeros(2), np.ones(2, np.bool_), np.zeros(2, np.bool_), {}


def test_class_whose_episodes_end_in_the_step_of_a_reset_is_refused() -> None:
    """Before: every second episode was lost without a word."""
    environment = adapt(
        AlwaysEnds({"autoreset_mode": AutoresetMode.NEXT_STEP}, None, is_same_step=False)
    )
    environment.reset(0)
    environment.step(np.zeros(2, np.int64))

    with pytest.raises(SpecMismatchError, match=r"autoreset_mode.*expected SAME_STEP.*slot 0"):
        environment.step(np.zeros(2, np.int64))


def test_class_that_says_same_step_without_final_observations_is_refused() -> None:
    environment = adapt(
        VectorClass({"autoreset_mode": AutoresetMode.SAME_STEP}, None, is_same_step=True)
    )
    environment.reset(0)

    for _ in range(2):
        environment.step(np.zeros(2, np.int64))

    with pytest.raises(SpecMismatchError, match=r"final_obs in the infos.*slot 0.*got none"):
        environment.step(np.zeros(2, np.int64))


def test_class_with_unknown_autoreset_mode_is_refused() -> None:
    with pytest.raises(UnsupportedSpaceError, match="AutoresetMode, got 'sometimes'"):
        adapt(VectorClass({"autoreset_mode": "sometimes"}, None, is_same_step=True))
