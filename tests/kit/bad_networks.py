"""Networks that each break one rule of the contract, and one that keeps them all.

One more is in test_own_models.py: its error names the file it is in.
"""

from __future__ import annotations

from typing import Any

import own_networks
import torch
from torch import Tensor, nn

from impala_common.models.contract import ModelInputs, ModelOutputs, make_state_specs
from impala_common.spec.specs import TensorSpec


class Good(own_networks.Remembering):
    """Keeps the contract; the bad ones below each break one rule of it."""


class Dropout(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return nn.functional.dropout(super().features(inputs), 0.5, self.training)


class Mode(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return super().features(inputs) * (1.0 if self.training else 1.1)


class BatchNorm(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        features = super().features(inputs)
        return features - features.mean(dim=1, keepdim=True)


class Later(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        features = super().features(inputs)
        return features + torch.cat((features[1:], features[-1:]))


class Earlier(own_networks.Plain):
    """Sees the row before, of which actors, who have one row, know nothing."""

    def features(self, inputs: ModelInputs) -> Tensor:
        features = super().features(inputs)
        return features + torch.cat((features[:1], features[:-1]))


class Doubles(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        return ModelOutputs(
            *(x.double() if isinstance(x, Tensor) else x for x in super().forward(inputs, state))
        )


class Pair(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        return super().forward(inputs, state)[:2]


class Squeezed(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        outputs = super().forward(inputs, state)
        return outputs._replace(values=outputs.values.squeeze())


class ValueColumn(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        outputs = super().forward(inputs, state)
        return outputs._replace(values=outputs.values.unsqueeze(-1))


class Infinite(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return super().features(inputs) / 0.0


class RootOfZero(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        return super().features(inputs) + (super().features(inputs) * 0.0).sqrt()


class DetachedValue(own_networks.Plain):
    def forward(self, inputs: ModelInputs, state: Any) -> Any:
        outputs = super().forward(inputs, state)
        return outputs._replace(values=outputs.values.detach())


class InPlace(own_networks.Plain):
    def features(self, inputs: ModelInputs) -> Tensor:
        inputs.observations["observation"].mul_(0.5)
        return super().features(inputs)


class NewBuffer(own_networks.Plain):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("mean", torch.zeros(()))

    def features(self, inputs: ModelInputs) -> Tensor:
        self.mean = self.mean.clone()
        return super().features(inputs)


class NoParameters(nn.Module):
    def __init__(self, *unused_arguments: Any) -> None:
        super().__init__()


class Frozen(own_networks.Plain):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.requires_grad_(False)


class Lazy(own_networks.Plain):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.body = nn.LazyLinear(16)


class Half(own_networks.Plain):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("table", torch.zeros(3, dtype=torch.bfloat16))


class NeverReset(own_networks.Remembering):
    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        return super().forward(inputs._replace(is_first=torch.zeros_like(inputs.is_first)), state)


class ResetAtTheStart(own_networks.Remembering):
    """Knows only the first row's resets: what a loop over whole unrolls forgets."""

    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        is_first = inputs.is_first.clone()
        is_first[1:] = False
        return super().forward(inputs._replace(is_first=is_first), state)


class ResetForAll(own_networks.Remembering):
    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        is_first = inputs.is_first.any(dim=1, keepdim=True).expand_as(inputs.is_first)
        return super().forward(inputs._replace(is_first=is_first), state)


class Forgets(own_networks.Remembering):
    """Hands back the state it was given."""

    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        return super().forward(inputs, state)._replace(state=state)


class KeepsState(own_networks.Remembering):
    memory: Any = None

    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        outputs = super().forward(inputs, self.memory or state)
        if inputs.is_first.shape[1] == 3:
            self.memory = tuple(tensor.detach().clone() for tensor in outputs.state)
        return outputs


class WideState(own_networks.Remembering):
    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        return make_state_specs((1, 9))


class TwoStates(own_networks.Remembering):
    def forward(self, inputs: ModelInputs, state: Any) -> ModelOutputs:
        outputs = super().forward(inputs, state)
        return outputs._replace(state=outputs.state * 2)


class BadStateName(own_networks.Remembering):
    def agent_state_specs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("hidden", (1, 8), "float32"),)


class OtherAct(own_networks.Remembering):
    def act(self, inputs: ModelInputs, state: Any) -> Any:
        logits, state = super().act(inputs, state)
        return logits + 1.0, state


class LogitsOnly(own_networks.Remembering):
    def act(self, inputs: ModelInputs, state: Any) -> Any:
        return super().act(inputs, state)[0]
