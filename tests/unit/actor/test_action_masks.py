"""Action masks: from the environment to logits that never draw an illegal action."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from impala_actor.environments.factory import make_environment, register_environment
from impala_common.codec.specs import pack_environment_spec, unpack_environment_spec
from impala_common.config import LossConfig
from impala_common.config.sections import EnvironmentConfig, ModelConfig
from impala_common.errors import InvalidRequestError, SpecMismatchError
from impala_common.models.action_mask import mask_logits
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.numerics.distributions import make_policies
from impala_common.numerics.losses import compute_losses
from impala_common.policy.policy import Policy
from impala_common.spec.specs import ActionPart, ActionSpec, EnvironmentSpec, TensorSpec

torch.set_num_threads(1)

PARTS = ActionSpec((ActionPart("action", "categorical", (2,), sizes=(2, 3), starts=(0, 0)),))


class Masked(gymnasium.Env[Any, Any]):
    """One or two legal actions of 5, others each step; raises on an illegal one."""

    def __init__(self, where: str) -> None:
        self.where = where
        plain = spaces.Box(-1, 1, (3,), np.float32)
        mask = spaces.Box(0, 1, (5,), np.int8)
        self.observation_space: spaces.Space[Any] = plain
        if where == "key":
            self.observation_space = spaces.Dict(state=plain, action_mask=mask)
        self.action_space = spaces.Discrete(5)
        self.t = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._see()

    def step(self, action: Any) -> Any:
        if not self.mask[action]:
            raise ValueError(f"illegal action {action}")
        self.t += 1
        observation, info = self._see()
        return observation, float(action), False, self.t == 7, info

    def _see(self) -> Any:
        self.mask = np.zeros(5, np.int8)
        self.mask[self.np_random.integers(5, size=2)] = 1
        state = np.zeros(3, np.float32)
        if self.where == "key":
            return {"state": state, "action_mask": self.mask.copy()}, {}
        return state, {"action_mask": self.mask.copy()}


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("where", ["key", "info"])
@pytest.mark.parametrize("is_greedy", [False, True])
def test_policy_never_takes_an_illegal_action(where: str, backend: str, is_greedy: bool) -> None:
    """Planted: the mask of the step before; the mask of slot 0 for all; no mask."""
    register_environment("object:masked", lambda: Masked(where))
    environment = make_environment("object:masked", 3, EnvironmentConfig(env_backend=backend))  # type: ignore[arg-type]
    spec = environment.spec
    assert spec.action_mask is not None
    assert unpack_environment_spec(pack_environment_spec(spec)) == spec
    assert EnvironmentSpec.from_json(spec.to_json()) == spec
    model = make_model(resolve_model_spec(ModelConfig(), spec), spec, 1)
    policy = Policy(model, spec.action, 3, 1)
    observations, is_first = environment.reset(1), np.ones(3, np.bool_)

    for _ in range(60):
        decision = policy.act(observations, is_first, is_greedy)
        step = environment.step(decision.actions)  # raises on an illegal one
        policy.observe(step.rewards, step.is_first)
        observations, is_first = step.observations, step.is_first
    environment.close()


@pytest.mark.parametrize(("where", "expected"), [("key", [0, 0, 0]), ("info", [1, 0, 0])])
def test_one_slot_alone_is_reset_to_look_for_masks(where: str, expected: list[int]) -> None:
    """Before: every slot was reset once more, also where the observation holds the mask."""
    made: list[Counted] = []

    class Counted(Masked):
        num_resets = 0

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            self.num_resets += 1
            return super().reset(seed=seed, options=options)

    def maker() -> Counted:
        made.append(Counted(where))
        return made[-1]

    register_environment("object:counted", maker)
    environment = make_environment("object:counted", 3, EnvironmentConfig(env_backend="sync"))

    assert [one.num_resets for one in made[-3:]] == expected
    environment.close()


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_mask_that_comes_with_steps_only_is_refused(backend: str) -> None:
    """Before: nobody read it, and illegal actions were drawn."""

    class Late(Masked):
        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            observation, _ = super().reset(seed=seed)
            self.mask[0] = 1
            return observation, {}

    register_environment("object:late", lambda: Late("info"))
    environment = make_environment("object:late", 2, EnvironmentConfig(env_backend=backend))  # type: ignore[arg-type]
    observations = environment.reset(0)
    assert list(observations) == ["observation"]

    with pytest.raises(SpecMismatchError, match=r"action_mask in the infos.*each reset"):
        environment.step(np.zeros(2, np.int64))
    environment.close()


@pytest.mark.parametrize("legal_is", ["0, others -1e9", "0, others -100", "2"])
@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("where", ["key", "info"])
def test_mask_of_other_numbers_than_0_and_1_is_refused(
    where: str, backend: str, legal_is: str
) -> None:
    """Masks that are added to logits mean the opposite: legal actions would never be drawn.

    Planted: only masks in infos checked; only masks of floating-point type checked.
    """

    class Added(Masked):
        def __init__(self, where: str) -> None:
            super().__init__(where)
            if where == "key":
                mask = spaces.Box(-np.inf, 2, (5,), np.float32)
                self.dtype = np.float32 if "1e9" in legal_is else np.int8
                if self.dtype == np.int8:
                    mask = spaces.Box(-100, 2, (5,), np.int8)
                state = spaces.Box(-1, 1, (3,), np.float32)
                self.observation_space = spaces.Dict(state=state, action_mask=mask)

        def _see(self) -> Any:
            observation, info = super()._see()
            legal = self.mask == 1
            holder = observation if self.where == "key" else info
            if legal_is == "2":
                holder["action_mask"] = np.where(legal, 2, 0).astype(np.int8)
            elif "1e9" in legal_is:
                holder["action_mask"] = np.where(legal, 0, -1e9).astype(np.float32)
            else:
                holder["action_mask"] = np.where(legal, 0, -100).astype(np.int8)
            return observation, info

    register_environment("object:added", lambda: Added(where))
    config = EnvironmentConfig(env_backend=backend)  # type: ignore[arg-type]

    with pytest.raises(SpecMismatchError, match=r"action_mask.*each 0 \(illegal\) or 1"):
        make_environment("object:added", 2, config).reset(0)


def test_network_of_a_masked_environment_does_not_read_the_mask() -> None:
    leaves = (
        TensorSpec("observation", (3,), "float32"),
        TensorSpec("observation/action_mask", (5,), "bool", "action_mask"),
    )
    spec = EnvironmentSpec(leaves, ActionSpec.discrete(5))

    model = make_model(resolve_model_spec(ModelConfig(), spec), spec, 1)

    assert {p.shape[1] for p in model.parameters() if p.ndim == 2} & {3}
    assert not any(p.ndim == 2 and p.shape[1] == 8 for p in model.parameters())


def test_mask_of_several_components_masks_each_and_spares_those_without_a_choice() -> None:
    logits = torch.arange(5.0).view(1, 1, 5)

    masked = mask_logits(logits, torch.tensor([[[1, 0, 0, 0, 0]]]), PARTS)

    assert masked[0, 0].tolist() == [0.0, -1e9, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("low", [-torch.inf, -1e9])
@pytest.mark.parametrize("action", [ActionSpec.discrete(5), PARTS])
def test_losses_with_masked_logits_are_finite_with_finite_gradients(
    action: ActionSpec, low: float
) -> None:
    """Planted: pi log pi as it is, which is 0 x infinity; log-probabilities of padding rows."""
    torch.manual_seed(0)
    shape = (4, 3)
    raw = torch.randn(*shape, 5, requires_grad=True)
    mask = torch.tensor([True, False, True, True, False])
    logits = raw.masked_fill(~mask, low)
    behaviour = torch.randn(*shape, 5).masked_fill(~mask, low)
    actions = torch.zeros(*shape, *action.tensor.shape, dtype=torch.int64)
    padding = torch.zeros(shape, dtype=torch.bool)
    padding[1, 1] = True
    actions[1, 1] = 1  # illegal: whatever an actor left there

    losses = compute_losses(
        action=action,
        target_policy_logits=logits,
        behaviour_policy_logits=behaviour,
        actions=actions,
        rewards=torch.ones(shape),
        terminated=torch.zeros(shape, dtype=torch.bool),
        is_padding=padding,
        values=torch.zeros(shape, requires_grad=True),
        bootstrap_value=torch.zeros(3),
        config=LossConfig(),
    )
    losses.total_loss.backward()  # type: ignore[no-untyped-call]

    assert all(torch.isfinite(value) for value in losses)
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad[..., ~mask] == 0).all()
    policies = make_policies(action, logits)
    for _ in range(50):
        drawn = policies.log_probs(policies.sample())
        assert torch.isfinite(drawn).all()


def test_flags_with_logits_of_infinity_have_entropy_and_kl() -> None:
    action = ActionSpec((ActionPart("action", "bernoulli", (2,), "int8"),))
    logits = torch.tensor([[-torch.inf, 0.0]], requires_grad=True)

    policies = make_policies(action, logits)

    assert policies.kl(policies).item() == 0.0
    assert torch.isfinite(policies.negative_entropies()).all()


def test_mask_that_cannot_be_one_is_refused() -> None:
    leaves = (
        TensorSpec("observation", (3,), "float32"),
        TensorSpec("observation/action_mask", (4,), "bool", "action_mask"),
    )
    spec = EnvironmentSpec(leaves, ActionSpec.discrete(5))
    for bad in (spec, dataclasses.replace(spec, observation_leaves=leaves[1:])):
        with pytest.raises(InvalidRequestError, match="role action_mask expects"):
            unpack_environment_spec(pack_environment_spec(bad))
