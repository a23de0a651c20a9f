"""make_model: makes the network that a ModelSpec names.

The learner resolves a ModelConfig against the environment once and sends the ModelSpec to actors,
which build the same network with `make_model`. To add an architecture to this package, add it to
the table of encoders; users' own networks are named "module:Class", or "object:Name" after
`register_model`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from impala_common.config.checks import OBJECT_PREFIX, is_own_model
from impala_common.config.sections import ModelConfig
from impala_common.errors import FOREIGN_ERRORS, ConfigError, ModelError
from impala_common.models import impala_resnet, minatar_cnn, nature_cnn
from impala_common.models.action_mask import MaskedModel
from impala_common.models.contract import AgentModel
from impala_common.models.inputs import (
    PIXEL_SCALE,
    find_leaf_layout,
    holds_pixels,
    require_image_layout,
)
from impala_common.models.mlp import MlpEncoder, SeparateMlp
from impala_common.models.multi import MultiEncoder, find_images
from impala_common.models.normalisation import (
    NormalisedModel,
    is_normalised,
    with_normalised_integers,
)
from impala_common.models.own_model import ForwardModel, describe_error, import_model_class
from impala_common.models.trunk import Encoder, TrunkModel
from impala_common.models.validation import validate_encoder, validate_model
from impala_common.spec.specs import EnvironmentSpec, ModelSpec

_ENCODERS: dict[str, Callable[[ModelSpec, EnvironmentSpec], Encoder]] = {
    "mlp": MlpEncoder,
    "nature_cnn": nature_cnn.NatureCnnEncoder,
    "minatar_cnn": minatar_cnn.MinAtarCnnEncoder,
    "impala_resnet": impala_resnet.ImpalaResnetEncoder,
    "multi": MultiEncoder,
}
Maker = Callable[[ModelSpec, EnvironmentSpec], nn.Module]
"""Makes a network or encoder; draws its initial weights from torch's global stream."""

_own_makers: dict[str, Maker] = {}
_MIN_SIDES = {
    "nature_cnn": nature_cnn.MIN_SIDE,
    "minatar_cnn": minatar_cnn.MIN_SIDE,
    "impala_resnet": impala_resnet.MIN_SIDE,
}


def register_model(name: str, maker: Maker) -> None:
    """Registers an own network in this process; replaces an earlier one of that name.

    Args:
      name: "object:Name", as in the settings and the other processes.
      maker: called as maker(spec, environment); returns an AgentModel, an Encoder or a module
        with the forward of ForwardModel.

    Raises:
      ConfigError: the name is not of that form.
    """
    if not name.startswith(OBJECT_PREFIX) or not is_own_model(name):
        raise ConfigError("model", name, "object:Name")
    _own_makers[name] = maker


def find_maker(name: str) -> Maker:
    """Returns the maker of the own network `name`: the registered one, or the imported class.

    Raises:
      ModelError: this process has no such network.
    """
    try:
        if not name.startswith(OBJECT_PREFIX):
            return import_model_class(name)
        if name not in _own_makers:
            raise ModelError(
                "is a Python object that was not handed to this process: use the IMPALA object "
                "that trained it, or train a class that has a name, module:Class"
            )
    except ModelError as error:
        raise ModelError(f"model {name} {error}") from error
    return _own_makers[name]


def resolve_model_spec(
    config: ModelConfig,
    environment: EnvironmentSpec,
    normalise_rewards: bool = False,
    normalise_integers: bool = True,
) -> ModelSpec:
    """Returns the specification of the network, with every "auto" and None resolved.

    Args:
      config: the settings.
      environment: specification of its inputs and actions.
      normalise_rewards: whether it holds statistics of rewards.
      normalise_integers: whether normalisation of observations includes integers; not in runs
        that began before this was possible, and never for own networks, which scale their inputs.

    Raises:
      ConfigError: the chosen network cannot process the environment's observations.
    """
    environment = environment.without_action_mask()
    name = config.model if config.model != "auto" else _choose_model(environment)
    if name in _MIN_SIDES:
        require_image_layout(environment, name, _MIN_SIDES[name])
    normalised = [
        leaf
        for leaf in environment.observation_leaves
        if config.normalise_observations
        and is_normalised(leaf, normalise_integers and not is_own_model(name))
    ]
    has_integers = not all(leaf.dtype.startswith("float") for leaf in normalised)
    if has_integers:
        environment = with_normalised_integers(environment)
    scale = config.observation_scale
    return ModelSpec(
        name=name,
        hidden_sizes=config.hidden_sizes,
        feature_dim=config.feature_dim,
        hidden_dim=config.hidden_dim,
        recurrence=config.recurrence,
        init_method=config.init_method,
        activation=config.activation,
        use_previous_action_and_reward=config.use_previous_action_and_reward,
        observation_scale=_choose_scale(name, environment) if scale is None else scale,
        normalise_observations=bool(normalised),
        observation_clip=config.observation_clip,
        normalise_rewards=normalise_rewards,
        log_std_init=config.log_std_init,
        normalise_integers=has_integers,
    )


def make_model(spec: ModelSpec, environment: EnvironmentSpec, seed: int) -> AgentModel:
    """Makes a network on the CPU with initial weights drawn from `seed` alone.

    The global random stream is restored; the same seed gives the same weights. Not for concurrent
    use with other threads that draw from that stream. An own network is checked with random data
    before it is returned.

    Raises:
      ConfigError: there is no network of that name.
      ModelError: an own network cannot be made, or breaks the contract.
    """
    seen = environment.without_action_mask()
    inner = with_normalised_integers(seen) if spec.normalise_integers else seen
    with _float32_on_cpu():
        network = _make_network(spec, environment if spec.is_own else inner, seed)
        if environment.action_mask is not None:
            network = MaskedModel(network, environment)
        if spec.normalise_observations or spec.normalise_rewards:
            network = NormalisedModel(network, spec, seen)
    if spec.is_own:
        try:
            validate_model(network, environment)
        except ModelError as error:
            raise ModelError(f"model {spec.name}: {error}") from error
    return network


def _make_network(spec: ModelSpec, environment: EnvironmentSpec, seed: int) -> AgentModel:
    if not spec.is_own and spec.name not in _ENCODERS:
        raise ConfigError("model", spec.name, f"one of {', '.join(_ENCODERS)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which also seeds CUDA
        if spec.is_own:
            return _make_own_model(spec, environment)
        if spec.name == "mlp" and spec.recurrence == "none":
            return SeparateMlp(spec, environment)
        return TrunkModel(_ENCODERS[spec.name](spec, environment), spec, environment)


@contextlib.contextmanager
def _float32_on_cpu() -> Iterator[None]:
    """Makes tensors without a type or device as specifications say, whatever torch's defaults."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)


def _make_own_model(spec: ModelSpec, environment: EnvironmentSpec) -> AgentModel:
    maker = find_maker(spec.name)
    try:
        made = maker(spec, environment)
    except FOREIGN_ERRORS as error:
        raise ModelError(
            f"model {spec.name} cannot be made from (spec, environment): {describe_error(error)}"
        ) from error
    if not isinstance(made, nn.Module):
        raise ModelError(f"model {spec.name}: expected a torch.nn.Module, got {made!r:.80}")
    if not isinstance(made, Encoder):
        return made if isinstance(made, AgentModel) else ForwardModel(made)
    try:
        validate_encoder(made, environment)
    except ModelError as error:
        raise ModelError(f"model {spec.name}: {error}") from error
    return TrunkModel(made, spec, environment)


def _choose_model(environment: EnvironmentSpec) -> str:
    """Returns the network for "auto"."""
    images, leaves = find_images(environment), environment.observation_leaves
    if len(leaves) > 1:
        return "multi" if images or any(map(holds_pixels, leaves)) else "mlp"
    layout = find_leaf_layout(leaves[0], environment.frame_stack) if images else None
    if layout is None:
        return "mlp"
    return "minatar_cnn" if layout.min_side < nature_cnn.MIN_SIDE else "nature_cnn"


def _choose_scale(name: str, environment: EnvironmentSpec) -> float:
    """Returns 1/255 if all observations are pixels, else 1; multi scales pixels itself."""
    is_pixels = name != "multi" and all(map(holds_pixels, environment.observation_leaves))
    return PIXEL_SCALE if is_pixels else 1.0
