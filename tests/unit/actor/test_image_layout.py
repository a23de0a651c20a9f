"""Image layout: adapters declare it, runs keep it, and only runs without it guess."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from impala_actor.environments.factory import make_environment, register_environment
from impala_actor.environments.spaces import make_environment_spec
from impala_common.codec.specs import (
    pack_environment_spec,
    pack_unroll_spec,
    unpack_environment_spec,
    unpack_unroll_spec,
)
from impala_common.config.sections import EnvironmentConfig, ModelConfig
from impala_common.errors import InvalidRequestError, SpecMismatchError, UnsupportedSpaceError
from impala_common.models.contract import ModelInputs
from impala_common.models.inputs import find_image_layout
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.spec.specs import (
    ActionSpec,
    EnvironmentSpec,
    TensorSpec,
    UnrollSpec,
    validate_same_environment,
)

SEAQUEST = TensorSpec("observation", (10, 10, 10), "bool", "image_hwc")


def spec_of(leaf: TensorSpec) -> EnvironmentSpec:
    return EnvironmentSpec((leaf,), ActionSpec.discrete(6))


class Picture(gymnasium.Env[Any, Any]):
    """Shows a black picture of a given shape and says, or does not say, how it lies."""

    def __init__(self, shape: tuple[int, ...], layout: object = None) -> None:
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(2)
        if layout is not None:
            self.metadata = {"image_layout": layout}

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(self.observation_space.shape, np.uint8), {}  # type: ignore[arg-type]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.reset()[0], 0.0, False, False, {}


@pytest.mark.parametrize("game", ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"])
def test_minatar_every_game_has_channels_last(game: str) -> None:
    """Planted: no role. Seaquest's [10, 10, 10] is then taken for channels first."""
    pytest.importorskip("minatar")
    environment = make_environment(f"MinAtar/{game}-v0", 1)
    layout = find_image_layout(environment.spec)
    environment.close()

    assert layout is not None
    assert layout.has_channels_last
    assert (layout.height, layout.width) == (10, 10)


@pytest.mark.parametrize(
    ("shape", "declared", "role"),
    [
        ((10, 10, 10), None, "image_hwc"),
        ((7, 7, 3), None, "image_hwc"),
        ((8, 10, 12), None, "image_hwc"),  # channels first by the rule of old runs
        ((84, 84, 84), None, "image_hwc"),
        ((4, 84, 84), None, "image_chw"),
        ((3, 64, 96), None, "image_chw"),
        ((10, 10, 10), "CHW", "image_chw"),
        ((4, 84, 84), "HWC", "image_hwc"),
        ((12,), "HWC", ""),
        ((12, 12), None, ""),
    ],
)
@pytest.mark.parametrize("backend", ["sync", "async"])
def test_gymnasium_image_layout_is_declared_or_gymnasiums(
    shape: tuple[int, ...], declared: str | None, role: str, backend: str
) -> None:
    """Planted: metadata not looked at; the smaller end taken for channels."""
    register_environment("object:picture", lambda: Picture(shape, declared))
    environment = make_environment("object:picture", 2, EnvironmentConfig(env_backend=backend))  # type: ignore[arg-type]
    environment.close()

    assert environment.spec.observation_leaves[0].role == role


def test_gymnasium_image_layout_that_is_none_is_refused() -> None:
    register_environment("object:odd-picture", lambda: Picture((8, 8, 3), "WHC"))

    with pytest.raises(UnsupportedSpaceError, match=r'image_layout.*"CHW", got .WHC'):
        make_environment("object:odd-picture", 1)


def test_frame_stack_has_channels_first_however_small() -> None:
    space = spaces.Box(0, 255, (4, 4, 4), np.uint8)

    spec = make_environment_spec(space, spaces.Discrete(2), 4)

    assert spec.observation_leaves[0].role == "image_chw"


def test_nested_observation_declares_each_image() -> None:
    space = spaces.Dict(
        camera=spaces.Box(0, 255, (16, 16, 16), np.uint8), arm=spaces.Box(-1, 1, (3,), np.float32)
    )

    spec = make_environment_spec(space, spaces.Discrete(2))

    assert [leaf.role for leaf in spec.observation_leaves] == ["", "image_hwc"]


def test_old_run_without_roles_keeps_the_layout_it_was_trained_with() -> None:
    """Planted: the default of a missing role is image_hwc."""
    data = spec_of(SEAQUEST).to_json()
    for leaf in data["observation_leaves"]:
        del leaf["role"]

    old = EnvironmentSpec.from_json(data)

    layout = find_image_layout(old)
    assert layout is not None
    assert not layout.has_channels_last
    assert EnvironmentSpec.from_json(spec_of(SEAQUEST).to_json()) == spec_of(SEAQUEST)


@torch.no_grad()
def test_old_run_actor_of_today_computes_what_the_learner_does() -> None:
    """The actor's own declaration gives way to the run's. Planted: model from the actor's spec."""
    run = spec_of(dataclasses.replace(SEAQUEST, role=""))
    actor = spec_of(SEAQUEST)
    validate_same_environment(run, actor)
    unroll = unpack_unroll_spec(pack_unroll_spec(UnrollSpec(4, run)), actor)
    model_spec = resolve_model_spec(ModelConfig(), run)
    image = torch.rand(1, 2, 10, 10, 10) < 0.3
    inputs = ModelInputs(
        {"observation": image},
        torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(1, 2, dtype=torch.int64),
        torch.zeros(1, 2),
    )

    theirs, ours, declared = (
        make_model(model_spec, environment, seed=3)(inputs, ()).policy_logits
        for environment in (run, unroll.environment, actor)
    )

    assert torch.equal(theirs, ours)
    assert not torch.allclose(theirs, declared)


def test_two_declared_layouts_that_differ_are_refused_by_name() -> None:
    other = dataclasses.replace(SEAQUEST, role="image_chw")

    with pytest.raises(SpecMismatchError, match=r"observation\.role.*image_hwc.*image_chw"):
        validate_same_environment(spec_of(SEAQUEST), spec_of(other))


def test_role_travels_and_one_that_cannot_be_is_refused() -> None:
    message = pack_environment_spec(spec_of(SEAQUEST))
    assert unpack_environment_spec(message) == spec_of(SEAQUEST)

    message.observation_leaves[0].role = 99  # type: ignore[assignment]
    with pytest.raises(InvalidRequestError, match="unknown role 99"):
        unpack_environment_spec(message)
    flat = spec_of(TensorSpec("observation", (9,), "bool", "image_hwc"))
    with pytest.raises(InvalidRequestError, match="expects rank 3"):
        unpack_environment_spec(pack_environment_spec(flat))
