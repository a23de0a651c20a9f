"""V-trace against a slow oracle from the paper's sums and products, and its identities.

"Planted" in a docstring names a fault that was put into vtrace.py to see the test fail.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_common.numerics.vtrace import VTraceReturns, from_importance_weights

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "vtrace_cases.npz"
INPUTS = ("log_rhos", "discounts", "rewards", "values", "bootstrap_value")
CLIPS = st.sampled_from([None, 0.5, 1.0, 2.5])


def _min(threshold: float | None, rho: float) -> float:
    return rho if threshold is None else min(threshold, rho)


def compute_oracle(
    case: dict[str, np.ndarray],
    clip_rho: float | None,
    clip_pg_rho: float | None,
    lambda_: float,
    clip_c: float | None = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """vs and pg_advantages, straight from equation 1: a sum over t of products over i."""
    num_rows, num_columns = case["rewards"].shape
    rhos = np.exp(case["log_rhos"])
    values = np.concatenate([case["values"], case["bootstrap_value"][None]])
    rewards, discounts = case["rewards"], case["discounts"]
    vs = values.copy()
    for b in range(num_columns):
        for s in range(num_rows):
            for t in range(s, num_rows):
                product = 1.0
                for i in range(s, t):
                    product *= discounts[i, b] * lambda_ * _min(clip_c, rhos[i, b])
                td_error = rewards[t, b] + discounts[t, b] * values[t + 1, b] - values[t, b]
                vs[s, b] += product * _min(clip_rho, rhos[t, b]) * td_error
    advantages = np.empty_like(rewards)
    for b in range(num_columns):
        for s in range(num_rows):
            mixed = lambda_ * vs[s + 1, b] + (1.0 - lambda_) * values[s + 1, b]
            q = rewards[s, b] + discounts[s, b] * mixed
            advantages[s, b] = _min(clip_pg_rho, rhos[s, b]) * (q - values[s, b])
    return vs[:-1], advantages


def make_case(
    seed: int, num_rows: int, num_columns: int, spread: float = 1.0
) -> dict[str, np.ndarray]:
    """Random inputs in float64; a tenth of the rows terminate, a tenth have a ratio of 0."""
    rng = np.random.default_rng(seed)
    shape = (num_rows, num_columns)
    log_rhos = rng.normal(0.0, spread, shape)
    log_rhos[rng.random(shape) < 0.1] = -np.inf
    return {
        "log_rhos": log_rhos,
        "discounts": np.where(rng.random(shape) < 0.1, 0.0, 0.95),
        "rewards": rng.normal(size=shape),
        "values": rng.normal(size=shape),
        "bootstrap_value": rng.normal(size=num_columns),
    }


def run(
    case: dict[str, np.ndarray], *settings: float | None, dtype: torch.dtype = torch.float64
) -> VTraceReturns:
    return from_importance_weights(
        *[torch.as_tensor(case[name], dtype=dtype) for name in INPUTS], *settings
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
def test_vtrace_golden_cases_agree(dtype: torch.dtype, tolerance: float) -> None:
    """Planted: vs of the same row instead of the next in the advantage; c unclipped."""
    with np.load(GOLDEN, allow_pickle=False) as archive:
        golden = {name: archive[name] for name in archive.files}
    num_cases = len(golden) // 10
    assert num_cases == 36

    for index in range(num_cases):
        case = {
            name.removeprefix(f"case{index:02d}_"): array
            for name, array in golden.items()
            if name.startswith(f"case{index:02d}_")
        }
        clips = [
            None if np.isnan(case[name]) else float(case[name])
            for name in ("clip_rho_threshold", "clip_pg_rho_threshold")
        ]
        returns = run(case, *clips, float(case["lambda"]), dtype=dtype)

        assert returns.vs.dtype == dtype
        for name in ("vs", "pg_advantages"):
            actual = getattr(returns, name).numpy()
            np.testing.assert_allclose(
                actual, case[name], rtol=tolerance, atol=tolerance, err_msg=f"case {index} {name}"
            )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    num_rows=st.integers(1, 11),
    num_columns=st.integers(1, 4),
    clip_rho=CLIPS,
    clip_pg_rho=CLIPS,
    clip_c=CLIPS,
    lambda_=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_vtrace_random_inputs_equal_double_sum(
    seed: int,
    num_rows: int,
    num_columns: int,
    clip_rho: float | None,
    clip_pg_rho: float | None,
    clip_c: float | None,
    lambda_: float,
) -> None:
    """Planted: lambda left out of c; doubling stopped one step early; clip_c ignored."""
    case = make_case(seed, num_rows, num_columns)

    returns = run(case, clip_rho, clip_pg_rho, lambda_, clip_c)

    vs, advantages = compute_oracle(case, clip_rho, clip_pg_rho, lambda_, clip_c)
    np.testing.assert_allclose(returns.vs.numpy(), vs, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(returns.pg_advantages.numpy(), advantages, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 31, 32, 33, 100])
def test_vtrace_on_policy_equals_n_step_returns(num_rows: int) -> None:
    """Planted: the bootstrap value left out of values_t_plus_1 (zeros instead)."""
    case = make_case(seed=num_rows, num_rows=num_rows, num_columns=3)
    case["log_rhos"] = np.zeros_like(case["log_rhos"])

    returns = run(case)

    expected = np.empty_like(case["rewards"])
    following = case["bootstrap_value"]
    for t in reversed(range(num_rows)):
        following = case["rewards"][t] + case["discounts"][t] * following
        expected[t] = following
    np.testing.assert_allclose(returns.vs.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(returns.pg_advantages.numpy(), expected - case["values"], atol=1e-12)


@pytest.mark.parametrize("lambda_", [0.0, 0.8, 0.95])
def test_vtrace_on_policy_with_lambda_equals_gae(lambda_: float) -> None:
    """Planted: q = r + gamma vs_{t+1} whatever lambda is (the common other definition)."""
    case = make_case(seed=2, num_rows=24, num_columns=3)
    case["log_rhos"] = np.zeros_like(case["log_rhos"])

    returns = run(case, 1.0, 1.0, lambda_)

    values = np.concatenate([case["values"], case["bootstrap_value"][None]])
    advantage = np.zeros(3)
    for t in reversed(range(24)):
        td_error = case["rewards"][t] + case["discounts"][t] * values[t + 1] - values[t]
        advantage = td_error + case["discounts"][t] * lambda_ * advantage
        np.testing.assert_allclose(returns.pg_advantages[t].numpy(), advantage, atol=1e-12)
        np.testing.assert_allclose(returns.vs[t].numpy(), advantage + values[t], atol=1e-12)


def test_vtrace_end_inside_unroll_equals_separate_trajectories() -> None:
    """A termination at row 4 cuts the unroll in two. Planted: trace without gamma_t (c alone)."""
    case = make_case(seed=3, num_rows=10, num_columns=2)
    case["log_rhos"][4] = 0.3
    case["discounts"] = np.full((10, 2), 0.95)
    case["discounts"][4] = 0.0

    whole = run(case)
    first = run({name: case[name][:5] for name in INPUTS[:4]} | {"bootstrap_value": np.ones(2)})
    second = run(
        {name: case[name][5:] for name in INPUTS[:4]} | {"bootstrap_value": case["bootstrap_value"]}
    )

    torch.testing.assert_close(whole.vs, torch.cat((first.vs, second.vs)))
    torch.testing.assert_close(
        whole.pg_advantages, torch.cat((first.pg_advantages, second.pg_advantages))
    )


def test_vtrace_ratio_zero_keeps_value_and_cuts_trace() -> None:
    """A padding row at 4: vs equals V there, and row 3 bootstraps from that V.

    Planted: cs of a row forced to at least 0.01.
    """
    case = make_case(seed=4, num_rows=9, num_columns=2)
    case["log_rhos"] = np.zeros((9, 2))
    case["log_rhos"][4] = -np.inf
    case["discounts"] = np.full((9, 2), 0.95)

    whole = run(case)
    before = run(
        {name: case[name][:4] for name in INPUTS[:4]} | {"bootstrap_value": case["values"][4]}
    )

    np.testing.assert_array_equal(whole.vs[4].numpy(), case["values"][4])
    np.testing.assert_array_equal(whole.pg_advantages[4].numpy(), 0.0)
    torch.testing.assert_close(whole.vs[:4], before.vs)
    torch.testing.assert_close(whole.pg_advantages[:4], before.pg_advantages)


def test_vtrace_permuted_columns_permute_results() -> None:
    case = make_case(seed=5, num_rows=12, num_columns=6)
    order = np.random.default_rng(6).permutation(6)

    plain = run(case)
    permuted = run({name: case[name][..., order] for name in INPUTS})

    torch.testing.assert_close(permuted.vs, plain.vs[:, order], rtol=0, atol=0)
    torch.testing.assert_close(
        permuted.pg_advantages, plain.pg_advantages[:, order], rtol=0, atol=0
    )


def test_vtrace_trailing_dimensions_equal_columns() -> None:
    case = make_case(seed=7, num_rows=12, num_columns=6)

    plain = run(case)
    folded = run({name: case[name].reshape(*case[name].shape[:-1], 2, 3) for name in INPUTS})

    assert folded.vs.shape == (12, 2, 3)
    torch.testing.assert_close(folded.vs.flatten(1), plain.vs)
    torch.testing.assert_close(folded.pg_advantages.flatten(1), plain.pg_advantages)


def test_vtrace_inputs_are_not_written_and_no_gradient_flows() -> None:
    """Planted: no_grad removed; in-place subtraction on the caller's rewards."""
    case = make_case(seed=8, num_rows=6, num_columns=2)
    tensors = {name: torch.tensor(case[name], requires_grad=True) for name in INPUTS}

    returns = from_importance_weights(*tensors.values())

    assert not returns.vs.requires_grad
    assert not returns.pg_advantages.requires_grad
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.detach().numpy(), case[name])


def test_vtrace_unclipped_large_ratios_in_float32_stay_finite() -> None:
    """Ratios of e^20 over rows without TD error. Planted: the scan kept in float32."""
    shape = (16, 1)
    inputs = [torch.full(shape, 20.0), torch.ones(shape), torch.zeros(shape), torch.zeros(shape)]

    returns = from_importance_weights(*inputs, torch.zeros(1), None, None, 1.0, None)

    assert torch.equal(returns.vs, torch.zeros(shape))


@pytest.mark.parametrize("name", INPUTS)
def test_vtrace_wrong_rank_or_shape_is_rejected(name: str) -> None:
    """Planted: the shape checks removed; most cases then broadcast in silence."""
    good = {key: torch.zeros(5, 2) for key in INPUTS[:4]} | {"bootstrap_value": torch.zeros(2)}

    for bad in (good[name].unsqueeze(-1), torch.zeros(()), good[name][..., :1]):
        with pytest.raises(ValueError, match="expected"):
            from_importance_weights(*(good | {name: bad}).values())
