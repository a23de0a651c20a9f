"""Networks as the seed's class makes them: seed, device, widths, initialisation, one's own."""

from __future__ import annotations

from typing import Any

import pytest
from seed_agents import Trained, are_equal, make_agent, make_images, weights_of
from torch import nn

from impala_common.errors import ConfigError

pytestmark = pytest.mark.timeout(180)


def test_seed_row_seed_decides_the_network_the_learner_begins_with(trained: Trained) -> None:
    """Seen failing with seed + 1 in the agent's own network."""
    first = trained.checkpoints[0]

    assert first.step == 0
    assert are_equal(first.tensors["weights"], trained.initial_weights)
    assert are_equal(weights_of(make_agent(seed=7)), trained.initial_weights)
    assert not are_equal(weights_of(make_agent(seed=8)), trained.initial_weights)


def test_seed_row_device_is_where_the_network_is() -> None:
    assert next(make_agent(device="cpu").network.parameters()).device.type == "cpu"
    assert make_agent(device="auto").config.job.device == "auto"
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        make_agent(device="tpu")


def test_seed_row_feature_dim_and_hidden_dim_are_widths_of_the_network() -> None:
    """Seen failing with hidden_sizes left at its default."""
    vectors = make_agent(feature_dim=24, hidden_dim=40).network
    images = make_agent(make_images, feature_dim=24, hidden_dim=40).network

    assert [m.out_features for m in vectors.modules() if isinstance(m, nn.Linear)][:2] == [24, 40]
    widths = [(m.in_features, m.out_features) for m in images.modules() if isinstance(m, nn.Linear)]
    assert widths[0][1] == 24
    assert widths[1] == (24, 40)


@pytest.mark.parametrize(
    "name",
    ["orthogonal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"],
)
def test_seed_row_network_init_method_and_init_fn_are_the_same_setting(name: str) -> None:
    by_method = weights_of(make_agent(network_init_method=name))

    assert are_equal(by_method, weights_of(make_agent(init_fn=name)))
    assert not are_equal(by_method, weights_of(make_agent()))
    with pytest.raises(ConfigError, match="init_fn is 'identity' but must be the same"):
        make_agent(network_init_method=name, init_fn="identity")
    with pytest.raises(ConfigError, match="network_init_method is 'nobody'"):
        make_agent(network_init_method="nobody")


def test_seed_row_network_may_be_shipped_or_ones_own() -> None:
    shipped = make_agent(make_images, model="impala_resnet").network
    own = make_agent(model=OwnNetwork).network
    fed_back = make_agent(config={"model": {"use_previous_action_and_reward": True}}).network

    assert sum(isinstance(m, nn.Conv2d) for m in shipped.modules()) == 15
    assert any(isinstance(m, OwnNetwork) for m in own.modules())
    first = next(m for m in fed_back.modules() if isinstance(m, nn.Linear))
    assert first.in_features == 4 + 2 + 1


class OwnNetwork(nn.Module):
    """A whole network: forward(inputs, state) -> outputs."""

    def __init__(self, spec: Any, environment: Any) -> None:
        super().__init__()
        self.body = nn.Linear(4, environment.action.num_logits + 1)

    def forward(self, inputs: Any, state: Any) -> Any:
        from impala_common.models.contract import ModelOutputs

        outputs = self.body(inputs.observations["observation"])
        return ModelOutputs(outputs[..., :-1], outputs[..., -1], state)


class BrokenNetwork(OwnNetwork):
    """Its logits are one too many."""

    def forward(self, inputs: Any, state: Any) -> Any:
        outputs = self.body(inputs.observations["observation"])
        return super().forward(inputs, state)._replace(policy_logits=outputs)


def test_seed_row_network_of_wrong_shape_is_refused_before_training_with_the_shapes() -> None:
    with pytest.raises(Exception, match=r"policy_logits: expected \[2, 3, 2\], got \[2, 3, 3\]"):
        make_agent(model=BrokenNetwork).freeze()
