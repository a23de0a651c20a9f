"""Axes of images: declared by the environment, kept in specifications."""

from __future__ import annotations

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from impala_actor.environments.factory import make_environment
from impala_actor.environments.slots import make_slots
from impala_actor.environments.spaces import make_environment_spec
from impala_common.codec.specs import (
    pack_environment_spec,
    pack_model_spec,
    unpack_environment_spec,
    unpack_model_spec,
)
from impala_common.config import ModelConfig
from impala_common.errors import InvalidRequestError, UnsupportedSpaceError
from impala_common.models.inputs import find_image_layout, prepare_image
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, ModelSpec, TensorSpec


def box(*shape: int) -> spaces.Box:
    return spaces.Box(0, 1, shape, np.float32)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((10, 10, 10), "HWC"),
        ((10, 10, 4), "HWC"),
        ((5, 7, 3), "HWC"),
        ((96, 64, 3), "HWC"),
        ((3, 3, 27), "HWC"),
        ((3, 64, 96), "CHW"),
        ((1, 84, 84), "CHW"),
        ((7, 10, 10), "CHW"),
        ((17, 8, 8), "CHW"),
        ((3, 64, 3), "HWC"),
        ((8,), ""),
        ((8, 8), ""),
    ],
)
def test_axes_of_a_box_are_gymnasiums_unless_its_sizes_rule_them_out(
    shape: tuple[int, ...], axes: str
) -> None:
    spec = make_environment_spec(box(*shape), spaces.Discrete(2))

    assert spec.observation_leaves[0].axes == axes


def test_axes_that_the_environment_declares_win() -> None:
    spec = make_environment_spec(box(10, 10, 10), spaces.Discrete(2), image_axes="CHW")

    layout = find_image_layout(spec)

    assert layout is not None
    assert not layout.has_channels_last


def test_axes_in_metadata_of_an_environment_reach_the_specification() -> None:
    class Planes(gymnasium.Env[np.ndarray, int]):
        metadata = {"render_modes": [], "image_axes": "CHW"}  # noqa: RUF012 (gymnasium's form)
        observation_space = box(10, 10, 10)
        action_space = spaces.Discrete(2)

    environment = make_slots("Planes", Planes, 2, "sync")

    assert environment.spec.observation_leaves[0].axes == "CHW"


def test_axes_that_are_none_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedSpaceError, match=r"image_axes.*HWC.*'WHC'"):
        make_environment_spec(box(4, 4, 4), spaces.Discrete(2), image_axes="WHC")


def test_frame_stack_has_its_frames_first_even_where_they_are_many() -> None:
    spec = make_environment_spec(box(90, 84, 84), spaces.Discrete(2), frame_stack=90)

    layout = find_image_layout(spec)

    assert spec.observation_leaves[0].axes == "SHW"
    assert layout is not None
    assert (layout.num_channels, layout.height, layout.width) == (90, 84, 84)


def test_minatar_game_with_ten_channels_has_them_last() -> None:
    environment = make_environment("MinAtar/Seaquest-v0", 1)

    layout = find_image_layout(environment.spec)

    assert environment.spec.observation_leaves[0].shape == (10, 10, 10)
    assert layout is not None
    assert layout.has_channels_last


def test_convolution_sees_the_channel_that_the_axes_name() -> None:
    leaf = TensorSpec("observation", (3, 3, 3), "float32", "HWC")
    layout = find_image_layout(EnvironmentSpec((leaf,), ActionSpec.discrete(2)))
    image = torch.zeros(1, 1, 3, 3, 3)
    image[..., 2] = 1.0  # channel 2 everywhere

    assert layout is not None
    prepared = prepare_image({"observation": image}, layout, 1.0)

    assert prepared[0].amax(dim=(1, 2)).tolist() == [0.0, 0.0, 1.0]


def make_environment_of(axes: str) -> EnvironmentSpec:
    leaf = TensorSpec("observation", (10, 10, 10), "bool", axes)
    return EnvironmentSpec((leaf,), ActionSpec.discrete(6))


def test_axes_survive_wire_and_file() -> None:
    environment = make_environment_of("HWC")
    model = resolve_model_spec(ModelConfig(model="minatar_cnn"), environment)

    assert unpack_environment_spec(pack_environment_spec(environment)) == environment
    assert EnvironmentSpec.from_json(environment.to_json()) == environment
    assert unpack_model_spec(pack_model_spec(model)) == model
    assert model.image_axes == ("HWC",)


def test_run_from_before_axes_plays_as_it_was_trained() -> None:
    old_environment = make_environment_of("").to_json()
    del old_environment["observation_leaves"][0]["axes"]
    environment = EnvironmentSpec.from_json(old_environment)
    spec = resolve_model_spec(ModelConfig(model="minatar_cnn"), environment)
    old_model = dataclasses.asdict(spec)
    del old_model["image_axes"]

    # An actor of today declares axes, and builds the network of the learner's ModelSpec.
    network = make_model(ModelSpec.from_json(old_model), make_environment_of("HWC"), seed=0)

    assert network.encoder.layout.has_channels_last is False  # type: ignore[attr-defined]


@pytest.mark.parametrize(("axes", "shape"), [("WHC", (4, 4, 4)), ("HWC", (4,)), ("H" * 99, (1,))])
def test_axes_from_the_wire_that_fit_no_image_are_refused(
    axes: str, shape: tuple[int, ...]
) -> None:
    message = pack_environment_spec(
        EnvironmentSpec((TensorSpec("observation", (4, 4, 4), "float32"),), ActionSpec.discrete(2))
    )
    message.observation_leaves[0].axes = axes
    message.observation_leaves[0].shape[:] = shape

    with pytest.raises(InvalidRequestError, match="axes: expected one of HWC"):
        unpack_environment_spec(message)
