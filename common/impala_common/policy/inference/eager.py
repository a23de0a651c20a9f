"""EagerInference: plain torch in float32 on any device; the reference of the other backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from impala_common.models.contract import AgentModel, ModelInputs
from impala_common.policy.inference.backend import Array, InferenceBackend, StepInputs


class EagerInference(InferenceBackend):
    """Calls `AgentModel.act` row by row."""

    name: ClassVar[str] = "eager"
    tolerance: ClassVar[float] = 0.0

    def __init__(self, model: AgentModel, num_slots: int, device: str = "cpu") -> None:
        """Runs `model` itself, moved to `device`; `load` overwrites its tensors."""
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        self._weights = {name: value.detach() for name, value in model.state_dict().items()}
        self._num_slots = num_slots
        self.reset()

    def reset(self) -> None:
        """See InferenceBackend."""
        state = self._model.initial_state(self._num_slots)
        self._state = tuple(tensor.to(self._device) for tensor in state)

    def load(self, weights: Mapping[str, Array]) -> None:
        """See InferenceBackend."""
        with torch.no_grad():
            targets = list(self._weights.values())
            sources = [torch.from_numpy(weights[name]) for name in self._weights]
            torch._foreach_copy_(targets, sources)

    def infer(self, inputs: StepInputs) -> Array:
        """See InferenceBackend."""
        with torch.inference_mode():
            rows = ModelInputs(
                {name: self._row(array) for name, array in inputs.observations.items()},
                self._row(inputs.is_first),
                self._row(inputs.previous_actions),
                self._row(inputs.previous_rewards),
            )
            logits, self._state = self._model.act(rows, self._state)
            array: Array = logits[0].to(torch.float32).cpu().numpy()
        return array

    @property
    def agent_state(self) -> tuple[Array, ...]:
        """See InferenceBackend."""
        return tuple(state.cpu().numpy() for state in self._state)

    @agent_state.setter
    def agent_state(self, state: tuple[Array, ...]) -> None:
        """See InferenceBackend."""
        self._state = tuple(torch.from_numpy(array).to(self._device) for array in state)

    def _row(self, array: Array) -> torch.Tensor:
        """Returns [1, N, ...], sharing memory with the array where the device is the CPU."""
        return torch.from_numpy(array).to(self._device).unsqueeze(0)
