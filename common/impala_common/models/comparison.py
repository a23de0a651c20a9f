"""Compares outputs of several calls of one network; used by `validate_model`."""

from __future__ import annotations

import torch
from torch import Tensor

from impala_common.errors import ModelError
from impala_common.models.checked_call import (
    call_checked,
    require_tensor,
    run_checked,
    validate_state,
)
from impala_common.models.contract import AgentModel, AgentState, ModelInputs, ModelOutputs
from impala_common.models.random_inputs import (
    NUM_COLUMNS,
    NUM_ROWS,
    SEED,
    count_logits,
    make_inputs,
    take_first_column,
    take_part,
)
from impala_common.spec.specs import EnvironmentSpec, TensorSpec

_TOLERANCE = {"cpu": 1e-4}  # relative to the largest number; other devices may sum less exactly
_OTHER_TOLERANCE = 1e-2


class Comparison:
    """Rules that compare several calls of one network."""

    def __init__(
        self,
        model: AgentModel,
        environment: EnvironmentSpec,
        specs: tuple[TensorSpec, ...],
        inputs: ModelInputs,
        state: AgentState,
        outputs: ModelOutputs,
    ) -> None:
        self._model = model
        self._environment = environment
        self._specs = specs
        self._inputs = inputs
        self._state = state
        self._outputs = outputs

    def run(self) -> None:
        """Raises ModelError at the first rule that is broken."""
        inputs, state = self._inputs, self._state
        _require_equal(
            self._forward(inputs, state),
            self._outputs,
            "two calls with equal inputs must give equal outputs (no dropout, no noise, and "
            "no state kept inside the network)",
        )
        self._compare_columns()
        self._compare_rows()
        self._compare_state()
        self._model.eval()
        _require_equal(
            self._forward(inputs, state),
            self._outputs,
            "train() and eval() must not differ (no dropout, no batch normalisation): actors "
            "run the network in eval mode",
        )
        self._compare_act()

    def _compare_columns(self) -> None:
        """A column alone (B=1) gives the same outputs as beside others."""
        alone = self._forward(
            take_part(self._inputs, columns=slice(1)), take_first_column(self._state)
        )
        together = ModelOutputs(
            self._outputs.policy_logits[:, :1],
            self._outputs.values[:, :1],
            take_first_column(self._outputs.state),
        )
        rule = "a column must not depend on the other columns of the batch (no batch normalisation)"
        _require_equal(alone, together, rule)

    def _compare_rows(self) -> None:
        """Row 0 does not depend on row 1."""
        outputs = self._forward(self._replace_row(1), self._state)
        rule = "row t must not depend on later rows"
        for name in ("policy_logits", "values"):
            _require_close(name, getattr(outputs, name)[:1], getattr(self._outputs, name)[:1], rule)

    def _compare_state(self) -> None:
        """A row that opens an episode does not depend on earlier rows or state."""
        if not self._specs:
            return
        # Columns that open at row 0: no row depends on the old state.
        first = self._inputs.is_first[0]
        # Columns that open at row 1: row 1 depends neither on it nor on row 0.
        second = self._inputs.is_first[1]
        other_state = tuple(tensor + 1.0 for tensor in self._state)
        outputs = self._forward(self._inputs, other_state)
        rule = "the state must be set to 0 before a row where is_first"
        self._compare_episodes(outputs, first, slice(None), rule)
        self._compare_episodes(outputs, second, slice(1, None), rule)
        other_row = self._replace_row(0)
        outputs = self._forward(other_row, other_state)
        rule = "nothing of an episode's rows may be seen after the next is_first"
        self._compare_episodes(outputs, second, slice(1, None), rule)

    def _compare_episodes(
        self, outputs: ModelOutputs, columns: Tensor, rows: slice, rule: str
    ) -> None:
        for name in ("policy_logits", "values"):
            after, before = getattr(outputs, name), getattr(self._outputs, name)
            _require_close(name, after[rows][:, columns], before[rows][:, columns], rule)
        for index, (after, before) in enumerate(
            zip(outputs.state, self._outputs.state, strict=True)
        ):
            _require_close(f"state[{index}]", after[:, columns], before[:, columns], rule)

    def _replace_row(self, row: int) -> ModelInputs:
        """Returns the inputs with other observations and rewards in one row."""
        other = make_inputs(self._environment, self._inputs.is_first.device, SEED + 1)
        is_row = torch.arange(NUM_ROWS, device=self._inputs.is_first.device) == row
        observations = {
            name: torch.where(is_row.view(-1, *[1] * (leaf.ndim - 1)), leaf, kept)
            for (name, leaf), kept in zip(
                other.observations.items(), self._inputs.observations.values(), strict=True
            )
        }
        rewards = torch.where(
            is_row.view(-1, 1), other.previous_rewards, self._inputs.previous_rewards
        )
        return self._inputs._replace(observations=observations, previous_rewards=rewards)

    def _compare_act(self) -> None:
        """Row by row with carried state (actors) equals all rows in one call (learner)."""
        logits, state = [], self._state
        with torch.inference_mode():
            for row in range(NUM_ROWS):
                inputs = take_part(self._inputs, rows=slice(row, row + 1))
                acted = call_checked("act", self._model.act, inputs, state)
                if not isinstance(acted, tuple) or len(acted) != 2:
                    raise ModelError(f"act: expected (policy_logits, state), got {acted!r:.80}")
                shape = (1, NUM_COLUMNS, count_logits(self._environment))
                require_tensor(
                    "act's policy_logits", acted[0], shape, inputs.is_first.device, "1, B, P"
                )
                logits.append(acted[0])
                state = validate_state("act's state", acted[1], self._specs, inputs)
        rule = "act row by row, carrying the state, must equal forward over all rows"
        _require_close("policy_logits", torch.cat(logits), self._outputs.policy_logits, rule)
        for index, (after, before) in enumerate(zip(state, self._outputs.state, strict=True)):
            _require_close(f"state[{index}]", after, before, rule)

    def _forward(self, inputs: ModelInputs, state: AgentState) -> ModelOutputs:
        return run_checked(self._model, self._environment, self._specs, inputs, state)


def _require_equal(actual: ModelOutputs, expected: ModelOutputs, rule: str) -> None:
    _require_close("policy_logits", actual.policy_logits, expected.policy_logits, rule)
    _require_close("values", actual.values, expected.values, rule)
    for index, (after, before) in enumerate(zip(actual.state, expected.state, strict=True)):
        _require_close(f"state[{index}]", after, before, rule)


def _require_close(name: str, actual: Tensor, expected: Tensor, rule: str) -> None:
    """Raises ModelError unless two tensors differ by rounding only."""
    if not expected.numel():
        return
    tolerance = _TOLERANCE.get(expected.device.type, _OTHER_TOLERANCE)
    scale = float(expected.abs().max())
    difference = float((actual - expected).abs().max())
    if not difference <= tolerance * scale + 1e-6:
        raise ModelError(f"{name}: {rule}; got a difference of {difference:.2g}")
