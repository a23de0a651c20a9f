"""Running statistics: each row counted once, none of padding, and nothing by a skipped update.

"Planted" in a docstring names a fault that was put into the code to see the test fail.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from update_batches import CONFIG, LEAF, VECTOR, B, T, make_batches, make_normalised

from impala_common.codec.weights import unpack_snapshot
from impala_common.config import LossConfig, ModelConfig
from impala_common.models.contract import ModelInputs
from impala_common.models.normalisation import (
    NormalisedModel,
    RunningMoments,
    compute_discounted_sums,
)
from impala_common.models.registry import make_model, resolve_model_spec
from impala_common.numerics.reward_preprocessing import preprocess_rewards
from impala_common.policy.policy import Policy
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
from impala_server.learner.batch_loader import Batch
from impala_server.learner.optimizers import make_optimizer
from impala_server.learner.update import Updater
from impala_server.learner.weights_store import WeightsStore
from impala_server.storage.shared_block import SharedBlock
from impala_server.storage.weights_block import WeightsReader

torch.set_num_threads(1)

MIXED = EnvironmentSpec(
    (
        TensorSpec("observation/double", (2,), "float64"),
        TensorSpec("observation/half", (), "float16"),
        TensorSpec("observation/grid", (2, 2, 3), "uint8"),
        TensorSpec("observation/counter", (), "int64"),
        TensorSpec("observation/picture", (36, 36, 1), "uint8"),
        TensorSpec("observation/flag", (3,), "bool"),
    ),
    VECTOR.action,
)


def counted_rows(batches: list[Batch]) -> Tensor:
    """All rows that count, one after the other: the oracle sees them at once."""
    rows = [batch.inputs.observations[LEAF.name][:-1][~batch.is_padding] for batch in batches]
    return torch.cat(rows).double()


def make_updater(model: NormalisedModel) -> Updater:
    return Updater(CONFIG, model, make_optimizer(CONFIG.optimizer, model), VECTOR.action)


def copies(model: NormalisedModel) -> list[Tensor]:
    return [tensor.clone() for tensor in model.statistics()]


def test_statistics_after_updates_are_those_of_all_counted_rows_at_once() -> None:
    """Planted: padding rows counted; observation T counted twice; statistics updated twice."""
    model, batches = make_normalised(), make_batches(5)
    updater = make_updater(model)

    for batch in batches:
        assert updater.apply(batch, 1e-3).is_applied

    rows = counted_rows(batches)
    (moments,) = model.observation_moments
    assert isinstance(moments, RunningMoments)
    assert moments.count == len(rows) < 5 * T * B
    torch.testing.assert_close(moments.mean, rows.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(moments.variance, rows.var(0, correction=0), rtol=1e-12, atol=0)


def test_reward_statistics_are_those_of_sums_within_episode_and_unroll() -> None:
    """Planted: sums carried over an episode's end; padding rows counted; discount left out."""
    model, batches = make_normalised(), make_batches(4)
    updater = make_updater(model)

    for batch in batches:
        updater.apply(batch, 1e-3)

    sums = []
    for batch in batches:
        for column in range(B):
            total = 0.0
            for row in range(T):
                if batch.inputs.is_first[row, column]:
                    total = 0.0
                if batch.is_padding[row, column]:
                    continue
                total = float(batch.rewards[row, column]) + CONFIG.loss.discount * total
                sums.append(total)
    assert model.reward_moments is not None
    assert model.reward_moments.count == len(sums)
    assert model.reward_std is not None
    assert float(model.reward_std) == pytest.approx(np.std(sums), rel=1e-5)
    assert updater.reward_std == model.reward_std


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1.0, 1e6])
def test_rewards_of_any_scale_are_divided_by_their_deviation(scale: float) -> None:
    """Seen to fail below 1e-4, where rewards stayed as good as none."""
    model, (batch,) = make_normalised(), make_batches(1)
    plain = make_normalised()
    for one, rewards in ((model, batch.rewards * scale), (plain, batch.rewards)):
        one.update_statistics(batch.inputs, rewards, batch.is_padding, 0.9)

    assert model.reward_std is not None
    assert plain.reward_std is not None
    assert float(model.reward_std) == pytest.approx(scale * float(plain.reward_std), rel=1e-5)


@pytest.mark.parametrize(("reward", "divisor"), [(0.0, 1.0), (5.0, 0.05), (-5.0, 0.05)])
def test_rewards_that_are_all_the_same_have_a_divisor(reward: float, divisor: float) -> None:
    model, (batch,) = make_normalised(), make_batches(1)
    rewards = torch.full_like(batch.rewards, reward)

    model.update_statistics(batch.inputs, rewards, batch.is_padding, 0.0)

    assert float(model.reward_std) == pytest.approx(divisor)  # type: ignore[arg-type]


def test_discounted_sums_start_anew_where_an_episode_does() -> None:
    rewards = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    is_first = torch.tensor([[False], [False], [True], [False]])

    sums = compute_discounted_sums(rewards, is_first, 0.5)

    assert sums.flatten().tolist() == [1.0, 2.5, 4.0, 10.0]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_in_any_portions_equal_all_at_once(offset: float) -> None:
    """Planted: the square of the sum in place of the centred sum of squares."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(40, B, 2, generator=generator, dtype=torch.float64) + offset
    is_counted = torch.rand(40, B, generator=generator) < 0.7
    moments = RunningMoments((2,))

    start = 0
    for size in (1, 2, 30, 0, 7):
        moments.update(rows[start : start + size], is_counted[start : start + size])
        start += size

    counted = rows[is_counted]
    torch.testing.assert_close(moments.mean, counted.mean(0))
    torch.testing.assert_close(moments.variance, counted.var(0, correction=0), rtol=1e-6, atol=0)
    assert moments.count == len(counted)


def test_moments_of_padding_alone_change_nothing() -> None:
    """Planted: division by the number of new rows."""
    moments = RunningMoments((2,))
    garbage = torch.full((4, B, 2), torch.nan)

    moments.update(garbage, torch.zeros(4, B, dtype=torch.bool))

    assert moments.mean.tolist() == [0.0, 0.0]
    assert moments.variance.tolist() == [1.0, 1.0]
    assert moments.count == 0


@pytest.mark.parametrize("part", ["observations", "rewards"])
def test_skipped_update_leaves_statistics_as_they_were(part: str) -> None:
    """Planted: statistics not put back."""
    model = make_normalised()
    good, bad = make_batches(2)
    updater = make_updater(model)
    updater.apply(good, 1e-3)
    before = copies(model)
    if part == "rewards":
        bad.rewards[~bad.is_padding] = torch.inf
    else:
        bad.inputs.observations[LEAF.name][2] = torch.nan

    result = updater.apply(bad, 1e-3)

    assert not result.is_applied
    assert all(torch.equal(a, b) for a, b in zip(model.statistics(), before, strict=True))
    assert updater.apply(good, 1e-3).is_applied


def test_statistics_count_the_batch_before_the_forward_pass() -> None:
    """The first update must not see raw observations. Planted: counted after the losses."""
    model, (batch,) = make_normalised(), make_batches(1)
    seen = []
    model.network.register_forward_pre_hook(
        lambda _, arguments: seen.append(arguments[0].observations[LEAF.name].clone())
    )

    make_updater(model).apply(batch, 1e-3)

    counted = seen[0][:-1][~batch.is_padding]
    torch.testing.assert_close(counted.mean(0), torch.zeros(LEAF.shape), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        counted.std(0, correction=0), torch.ones(LEAF.shape), atol=1e-3, rtol=0
    )


def test_published_snapshot_carries_present_statistics() -> None:
    """Planted: a new tensor assigned in place of a change in place; buffers not persistent."""
    model, batches = make_normalised(), make_batches(2)
    block = SharedBlock.create("weights")
    store = WeightsStore(block, model)
    updater = make_updater(model)
    acting = make_normalised(seed=2)
    policy = Policy(acting, VECTOR.action, num_slots=B, seed=1)

    for batch in batches:
        updater.apply(batch, 1e-3)
    store.publish(2, 2 * T * B)
    policy.load(unpack_snapshot(WeightsReader(block.map()).read().data))

    observations = batches[0].inputs.observations[LEAF.name][0]
    step = policy.act({LEAF.name: observations.numpy()}, np.ones(B, np.bool_))
    inputs = batches[0].inputs
    with torch.no_grad():
        logits = model(inputs, ()).policy_logits[0]
    torch.testing.assert_close(torch.from_numpy(step.logits), logits)
    for ours, theirs in zip(model.statistics(), acting.statistics(), strict=True):
        assert torch.equal(ours, theirs)
    assert acting.statistics()[0].abs().max() > 1.0


def test_optimizer_and_plain_networks_know_nothing_of_statistics() -> None:
    """Names of a network without normalisation are those they always were."""
    model = make_normalised()
    plain = make_model(resolve_model_spec(ModelConfig(hidden_sizes=(8,)), VECTOR), VECTOR, 1)

    names = {name.removeprefix("network.") for name, _ in model.named_parameters()}

    assert names == set(plain.state_dict())
    assert {name for name in model.state_dict() if not name.startswith("network.")} == {
        f"{moments}.{name}"
        for moments in ("observation_moments.0", "reward_moments")
        for name in ("mean", "variance", "count")
    }
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[f"network.{name}"], value)


def observe_mixed() -> dict[str, Tensor]:
    """One row of MIXED."""
    return {
        "observation/double": torch.tensor([[[1e9 + 0.5, 1e9 - 7.0]]], dtype=torch.float64),
        "observation/half": torch.tensor([[3.0]], dtype=torch.float16),
        "observation/grid": torch.full((1, 1, 2, 2, 3), 200, dtype=torch.uint8),
        "observation/counter": torch.tensor([[10**9 + 7]]),
        "observation/picture": torch.full((1, 1, 36, 36, 1), 200, dtype=torch.uint8),
        "observation/flag": torch.ones(1, 1, 3, dtype=torch.bool),
    }


def run_on_mixed(model: NormalisedModel) -> dict[str, Tensor]:
    """Runs `model` on that row; returns what the network behind it was given."""
    seen: list[dict[str, Tensor]] = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[0].observations))
    is_first, zeros = torch.zeros(1, 1, dtype=torch.bool), torch.zeros(1, 1)
    model(ModelInputs(observe_mixed(), is_first, zeros.long(), zeros), ())
    return seen[0]


def test_floats_and_integers_but_no_pictures_and_flags_are_normalised_and_clipped() -> None:
    """Planted: clip left out; a large float64, or int64, made float32 before it is shifted."""
    spec = resolve_model_spec(ModelConfig(normalise_observations=True, observation_clip=2.0), MIXED)
    model = make_model(spec, MIXED, 1)
    assert isinstance(model, NormalisedModel)
    double, half, grid, counter = model.observation_moments
    assert isinstance(double, RunningMoments)
    assert isinstance(half, RunningMoments)
    assert isinstance(grid, RunningMoments)
    assert isinstance(counter, RunningMoments)
    double.mean.fill_(1e9)
    half.variance.fill_(4.0)
    grid.mean.fill_(201.0)
    counter.mean.fill_(1e9)
    counter.variance.fill_(49.0)

    got = run_on_mixed(model)

    assert model.leaf_names == tuple(leaf.name for leaf in MIXED.observation_leaves[:4])
    assert got["observation/double"].flatten().tolist() == [0.5, -2.0]
    assert got["observation/half"].item() == 1.5
    assert got["observation/grid"].flatten().tolist() == pytest.approx([-1.0] * 12)
    assert got["observation/counter"].item() == pytest.approx(1.0)
    for name in model.leaf_names:
        assert got[name].dtype == torch.float32
    for name in ("observation/picture", "observation/flag"):
        assert torch.equal(got[name], observe_mixed()[name])
        assert got[name].dtype == observe_mixed()[name].dtype


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint16", "int64", "int8"])
def test_picture_of_another_type_than_bytes_is_normalised_by_channel(dtype: str) -> None:
    """Before: pixels from 0 to 255 reached the convolutions as they were, and nothing was learned.

    The generic preset on pictures of int32 that show which of four actions is right, 20 times an
    episode: 5.3 after 60,000 steps, which is chance.
    """
    leaf = TensorSpec("observation", (48, 48, 3), dtype, "image_hwc")
    environment = EnvironmentSpec((leaf,), VECTOR.action)
    spec = resolve_model_spec(ModelConfig(normalise_observations=True), environment)
    model = make_model(spec, environment, 1)
    assert isinstance(model, NormalisedModel)
    (moments,) = model.observation_moments
    assert isinstance(moments, RunningMoments)
    moments.mean.copy_(torch.tensor([10.0, 20.0, 30.0]).double())
    moments.variance.fill_(100.0)
    pixels = torch.full((1, 1, 48, 48, 3), 40, dtype=getattr(torch, dtype))
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].observations["observation"])
    )
    is_first, zeros = torch.zeros(1, 1, dtype=torch.bool), torch.zeros(1, 1)

    model(ModelInputs({"observation": pixels}, is_first, zeros.long(), zeros), ())

    assert (spec.name, spec.observation_scale) == ("nature_cnn", 1.0)
    assert seen[0][0, 0].unique(dim=0).unique(dim=1).flatten().tolist() == pytest.approx([3, 2, 1])


def test_networks_of_earlier_versions_keep_their_integers_as_they_are() -> None:
    """Planted: integers normalised whatever the specification says."""
    config = ModelConfig(normalise_observations=True)
    spec = resolve_model_spec(config, MIXED, normalise_integers=False)

    model = make_model(spec, MIXED, 1)

    assert isinstance(model, NormalisedModel)
    assert model.leaf_names == ("observation/double", "observation/half")
    assert run_on_mixed(model)["observation/grid"].dtype == torch.uint8


@pytest.mark.parametrize(("role", "channel_axis"), [("image_hwc", 4), ("image_chw", 2)])
def test_images_of_integers_have_one_mean_for_each_channel(role: str, channel_axis: int) -> None:
    """Planted: element by element, padding counted, deviations from each row's mean."""
    shape = (5, 6, 3) if role == "image_hwc" else (3, 5, 6)
    environment = EnvironmentSpec(
        (TensorSpec("observation", shape, "uint8", role),), ActionSpec.discrete(2)
    )
    spec = resolve_model_spec(ModelConfig(normalise_observations=True), environment)
    model = make_model(spec, environment, 1)
    assert isinstance(model, NormalisedModel)
    generator = torch.Generator().manual_seed(2)
    counted = []
    for _ in range(3):
        rows = torch.randint(0, 9, (5, 2, *shape), generator=generator).to(torch.uint8)
        is_padding = torch.rand(4, 2, generator=generator) < 0.3
        no = torch.zeros(5, 2, dtype=torch.bool)
        inputs = ModelInputs({"observation": rows}, no, no.long(), torch.zeros(5, 2))
        model.update_statistics(inputs, torch.zeros(4, 2), is_padding, 0.99)
        counted.append(rows[:-1][~is_padding].movedim(channel_axis - 1, -1).flatten(0, -2))
    rows_at_once = torch.cat(counted).double()

    (moments,) = model.observation_moments

    assert isinstance(moments, RunningMoments)
    assert moments.mean.shape == ((1, 1, 3) if role == "image_hwc" else (3, 1, 1))
    torch.testing.assert_close(moments.mean.flatten(), rows_at_once.mean(dim=0))
    torch.testing.assert_close(moments.variance.flatten(), rows_at_once.var(dim=0, correction=0))


@pytest.mark.parametrize("shape", [(7, 7, 3), (10, 10), (128,)])
def test_small_integers_reach_the_layers_with_deviation_1(shape: tuple[int, ...]) -> None:
    """A grid of codes in a space of 0 to 255 says nothing of its range.

    Planted: normalised codes divided by 255 as if they still were pixels.
    """
    environment = EnvironmentSpec(
        (TensorSpec("observation", shape, "uint8", "image_hwc" if len(shape) == 3 else ""),),
        ActionSpec.discrete(2),
    )
    spec = resolve_model_spec(ModelConfig(normalise_observations=True), environment)
    model = make_model(spec, environment, 1)
    assert isinstance(model, NormalisedModel)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 4, (65, 8, *shape), generator=generator).to(torch.uint8)
    no = torch.zeros(65, 8, dtype=torch.bool)
    inputs = ModelInputs({"observation": rows}, no, no.long(), torch.zeros(65, 8))
    model.update_statistics(inputs, torch.zeros(64, 8), no[:-1], 0.99)
    seen: list[Tensor] = []
    layers = [
        module
        for module in model.network.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]
    layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))

    model(inputs, ())

    assert spec.normalise_integers
    assert float(seen[0].mean()) == pytest.approx(0.0, abs=0.02)
    assert float(seen[0].std()) == pytest.approx(1.0, abs=0.02)


def test_observations_of_flags_have_nothing_to_normalise() -> None:
    """Planted: the wish passed on as it is, so that the network has a wrapper around it."""
    environment = EnvironmentSpec(
        (TensorSpec("observation", (10, 10, 4), "bool"),), ActionSpec.discrete(2)
    )

    spec = resolve_model_spec(ModelConfig(normalise_observations=True), environment)

    assert not spec.normalise_observations
    assert not isinstance(make_model(spec, environment, 1), NormalisedModel)


def test_rewards_are_normalised_then_scaled_then_clipped() -> None:
    """Planted: scaled and clipped first."""
    rewards = torch.tensor([-8.0, 1.0, 40.0])
    config = LossConfig(reward_scale=0.5, reward_clipping="clip")

    processed = preprocess_rewards(rewards, config, torch.tensor(4.0, dtype=torch.float64))

    assert processed.tolist() == [-1.0, 0.125, 1.0]
    assert processed.dtype == torch.float32
    assert rewards.tolist() == [-8.0, 1.0, 40.0]
