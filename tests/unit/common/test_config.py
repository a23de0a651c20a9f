"""Settings: helpful errors, and a complete config.toml that is read back unchanged."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_common.config import (
    CheckpointConfig,
    EnvironmentConfig,
    JobConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ReuseConfig,
    RolloutConfig,
    SecurityConfig,
    TrainConfig,
    TransportConfig,
)
from impala_common.config.presets import PRESETS, make_preset, preset_for_environment
from impala_common.config.sections import INIT_METHODS, MODEL_NAMES
from impala_common.config.toml_io import (
    document_fields,
    dump_config,
    load_config,
    setting_names,
    unpack_config,
)
from impala_common.errors import ConfigError

SECTIONS = typing.get_type_hints(TrainConfig)


@pytest.mark.parametrize(
    ("section", "name", "value", "rule"),
    [
        (EnvironmentConfig, "envs_per_actor", 0, "greater than 0"),
        (EnvironmentConfig, "atari_noop_max", -1, "at least 0"),
        (EnvironmentConfig, "atari_sticky_action_probability", 1.5, "in [0.0, 1.0]"),
        (ModelConfig, "model", "cnn", "one of auto, mlp"),
        (ModelConfig, "hidden_sizes", (64, 0), "widths greater than 0"),
        (ModelConfig, "init_method", "zeros", "one of identity"),
        (RolloutConfig, "unroll_length", 0, "greater than 0"),
        (RolloutConfig, "num_learners", 65, "in [1, 64]"),
        (RolloutConfig, "max_policy_lag", -1, "at least 0"),
        (LossConfig, "discount", 1.01, "in [0.0, 1.0]"),
        (LossConfig, "discount", math.nan, "in [0.0, 1.0]"),
        (LossConfig, "clip_rho_threshold", 0.0, "greater than 0"),
        (LossConfig, "clip_c_threshold", 2.0, "at most clip_rho_threshold"),
        (LossConfig, "clip_c_threshold", None, "at most clip_rho_threshold"),
        (LossConfig, "entropy_cost", -0.1, "at least 0"),
        (LossConfig, "reward_scale", math.inf, "greater than 0"),
        (LossConfig, "reward_clipping", "tanh", "one of none, clip, sign"),
        (OptimizerConfig, "optimizer", "sgd", "one of rmsprop, adam"),
        (OptimizerConfig, "learning_rate", 0.0, "greater than 0"),
        (OptimizerConfig, "learning_rate", math.nan, "greater than 0"),
        (OptimizerConfig, "adam_beta2", 1.0, "in [0, 1)"),
        (OptimizerConfig, "max_grad_norm", -1.0, "at least 0"),
        (ReuseConfig, "passes", 0, "greater than 0"),
        (ReuseConfig, "max_passes", -1, "at least 0"),
        (ReuseConfig, "parts", 0, "greater than 0"),
        (ReuseConfig, "part_kind", "columns", "one of unrolls, rows, auto"),
        (ReuseConfig, "surrogate_clip", -0.1, "at least 0"),
        (ReuseConfig, "kl_stop", math.nan, "at least 0"),
        (ReuseConfig, "replay_ratio", math.inf, "at least 0"),
        (ReuseConfig, "replay_capacity_bytes", 0, "greater than 0"),
        (TransportConfig, "port", 65536, "in [0, 65535]"),
        (TransportConfig, "window", 0, "in [1, 16]"),
        (TransportConfig, "weights_refresh", "row", "one of unroll, step"),
        (SecurityConfig, "tls_cert", "server.crt", "given with --tls-key"),
        (SecurityConfig, "tls_key", "server.key", "left out without --tls-cert"),
        (SecurityConfig, "tls_client_ca", "ca.pem", "left out without --tls-cert"),
        (CheckpointConfig, "keep_checkpoints", 0, "greater than 0"),
        (CheckpointConfig, "log_interval_s", 0.0, "greater than 0"),
        (JobConfig, "total_steps", 0, "in [1, 1000000000000000]"),
        (JobConfig, "device", "cuda:x", "auto, cpu, cuda or cuda:N"),
        (JobConfig, "seed", -1, "in [0, 9223372036854775807]"),
    ],
)
def test_bad_value_is_refused_with_name_value_and_rule(
    section: type[Any], name: str, value: object, rule: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        section(**{name: value})

    assert (caught.value.name, caught.value.value) == (name, value) or math.isnan(value)
    assert f"{name} is {value!r} but must be {rule}" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "consequence"),
    [
        ({"job": {"num_actors": 2, "lockstep": True}}, "order in which several actors"),
        (
            {"job": {"num_actors": 1, "lockstep": True}, "environment": {"envs_per_actor": 3}},
            "a message must be a batch",
        ),
        ({"transport": {"host": "10.0.0.1"}}, "impala-admin certs init"),
        ({"loss": {"clip_c_threshold": 1.5}}, "contraction is proven"),
        ({"reuse": {"parts": 3}, "rollout": {"batch_size": 2}}, "a part would be empty"),
        (
            {
                "reuse": {"parts": 9, "part_kind": "rows"},
                "rollout": {"batch_size": 2, "unroll_length": 4},
            },
            "at most 8, the rows",
        ),
        ({"reuse": {"replay_ratio": 0.1}, "rollout": {"batch_size": 2}}, "nothing would be"),
    ],
)
def test_rule_that_surprises_says_what_would_happen(
    changes: dict[str, Any], consequence: str
) -> None:
    with pytest.raises(ConfigError, match=consequence):
        unpack_config(changes, TrainConfig())


EXPLICIT: dict[str, st.SearchStrategy[Any]] = {
    "tls_cert": st.just("server.crt"),
    "tls_key": st.just("server.key"),
    "prometheus_host": st.just("127.0.0.1"),
    "admin_address": st.sampled_from(["unix", "none", "unix:/a/b", "127.0.0.1:0", "[::1]:7"]),
    "host": st.sampled_from(["127.0.0.1", "localhost", "::1"]),
    "device": st.sampled_from(["auto", "cpu", "cuda:3"]),
    "lockstep": st.just(False),
    "parts": st.just(1),
    "rank_timeout_s": st.floats(1.0, 3600.0),
    "rank_wait_s": st.floats(1.0, 3600.0),
    "rank_join_s": st.floats(1.0, 3600.0),
    "replay_ratio": st.sampled_from([0.0, 1.0, 2.5]),
    "env_kwargs": st.sampled_from(["", "{}", '{"is_slippery": false, "map_name": "4x4"}']),
    "env_wrapper": st.lists(st.just("my_module:Wrapper"), max_size=2).map(tuple),
    "seed": st.integers(0, 2**63 - 1),
    "total_steps": st.integers(1, 10**15),
    "model": st.sampled_from(MODEL_NAMES),
    "init_method": st.sampled_from(INIT_METHODS),
    "clip_rho_threshold": st.none() | st.floats(1.0, 1e6),
    "clip_c_threshold": st.floats(1e-6, 1.0),
}


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Returns allowed values of a setting of this type: small numbers suit every rule."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(st.none(), *(values_of(kind) for kind in arguments if kind is float))
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=4).map(tuple)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(1, 16),
        float: st.floats(1e-300, 0.999999),
        str: st.text(),
    }
    return simple[annotation]


def sections(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(
        kind,
        **{
            name: EXPLICIT[name] if name in EXPLICIT else values_of(hint)
            for name, hint in hints.items()
        },
    )


CONFIGS = st.builds(TrainConfig, **{name: sections(kind) for name, kind in SECTIONS.items()})


@settings(max_examples=40, deadline=None)
@given(config=CONFIGS)
def test_config_through_toml_is_the_same(config: TrainConfig) -> None:
    """Seen to fail with None left out of the file, and with floats printed by "%g"."""
    tables = tomllib.loads(dump_config(config))

    assert unpack_config(tables, TrainConfig()) == config
    assert unpack_config(tables, make_preset("atari")) == config


@pytest.mark.parametrize("name", PRESETS)
def test_preset_through_file_is_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(dump_config(make_preset(name)))

    assert load_config(path) == make_preset(name)


def test_dump_has_every_setting_below_its_documentation() -> None:
    text = dump_config(TrainConfig())

    tables = tomllib.loads(text)
    assert [f"{name}.{key}" for name, table in tables.items() for key in table] == setting_names()
    assert "# Discount per agent step, in [0, 1].\ndiscount = 0.99\n" in text
    assert 'atari_sticky_action_probability = "none"\n' in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("section", SECTIONS.values(), ids=lambda kind: kind.__name__)
def test_every_setting_is_documented(section: type[Any]) -> None:
    documentation = document_fields(section)

    assert [field.name for field in dataclasses.fields(section)] == list(documentation)
    assert all(text.endswith(".") for text in documentation.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimiser]", "optimiser is .* but must be a section .*: did you mean optimizer"),
        ("[optimizer]\nlerning_rate = 1", "did you mean optimizer.learning_rate"),
        ("[optimizer]\ndiscount = 1", "optimizer.discount is 1 .* did you mean loss.discount"),
        ("[job]\nzzz = 1", "job.zzz is 1 but must be a setting that exists: read"),
        ("seed = 1", "seed is 1 but must be inside a section: did you mean job.seed"),
        ("job = 1", "job is 1 but must be a section"),
        ("[loss]\ndiscount = '0.9'", "discount is '0.9' but must be a number"),
        ("[loss]\ndiscount = true", "discount is True but must be a number"),
        ("[loss]\ndiscount = 2", r"discount is 2.0 but must be in \[0.0, 1.0\]: read from"),
        ("[loss]\nclip_rho_threshold = 'x'", "'x' but must be a number, or \"none\""),
        ("[job]\nseed = 1.0", "seed is 1.0 but must be a whole number"),
        ("[job]\nlockstep = 1", "lockstep is 1 but must be true or false"),
        ("[job]\ntag = 1", "tag is 1 but must be a string in quotes"),
        ("[model]\nhidden_sizes = 64", "hidden_sizes is 64 but must be a list"),
        ("[model]\nhidden_sizes = [64, 'x']", "hidden_sizes is 'x' but must be a whole number"),
        ("[model]\nactivation = ['tanh']", "but must be one of tanh"),
        ("[model]\nmodel = 'my nets:Net'", "but must be one of auto, .* or module:Class"),
        ("[model]\nuse_lstm = true", "model.use_lstm is True but must be a setting that exists"),
        ("[model]\nrecurrence = 'rnn'", "'rnn' but must be one of none, lstm, gru"),
        ("[job", "config file is .* but must be a readable TOML file"),
        ("[job]\nseed = 1\nseed = 2", "readable TOML file: Cannot overwrite"),
        ("\0", "readable TOML file"),
    ],
)
def test_load_of_bad_file_names_setting_rule_and_file(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)

    assert str(path) in str(caught.value)


def test_load_of_missing_or_binary_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe")

    for name in ("missing", "b", "."):
        with pytest.raises(ConfigError, match="readable TOML file"):
            load_config(tmp_path / name)


def test_load_takes_what_is_missing_from_base_and_whole_numbers_for_floats(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[optimizer]\nmax_grad_norm = 1\n[loss]\nclip_rho_threshold = 'none'\n")
    base = make_preset("cartpole")

    config = load_config(path, base)

    assert config.optimizer == dataclasses.replace(base.optimizer, max_grad_norm=1.0)
    assert type(config.optimizer.max_grad_norm) is float
    assert config.loss.clip_rho_threshold is None
    assert config.job == base.job


@pytest.mark.parametrize(
    ("env", "preset"),
    [
        ("CartPole-v1", "cartpole"),
        ("module:CartPole-v0", "cartpole"),
        ("impala_common.testing.environments:PositionCartPole-v1", "cartpole_memory"),
        ("Pendulum-v1", "generic"),
        ("HalfCheetah-v5", "mujoco"),
        ("Reacher-v5", "mujoco"),
        ("HumanoidStandup-v5", "mujoco"),
        ("minigrid:MiniGrid-MemoryS7-v0", "minigrid"),
        ("Acrobot-v1", "generic"),
        ("LunarLander-v3", "lunarlander"),
        ("MinAtar/Breakout-v1", "minatar"),
        ("ALE/Pong-v5", "atari"),
        ("PongNoFrameskip-v4", "atari"),
        ("MyCartPole-v1", "generic"),
        ("", "generic"),
    ],
)
def test_preset_is_chosen_by_environment(env: str, preset: str) -> None:
    assert preset_for_environment(env) == preset


def test_parts_are_rows_where_the_network_has_no_memory_and_unrolls_else() -> None:
    """Planted: as many parts as of rows, so that some of a few unrolls would be empty."""
    reuse = ReuseConfig(parts=16, part_kind="auto", replay_ratio=0.5)

    rows, unrolls = (reuse.fit_to_network(has_memory, 8) for has_memory in (False, True))

    assert (rows.part_kind, rows.parts) == ("rows", 16)
    assert (unrolls.part_kind, unrolls.parts) == ("unrolls", 12)
    assert ReuseConfig(parts=2).fit_to_network(False, 8) == ReuseConfig(parts=2)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_takes_a_network_with_memory(name: str) -> None:
    """Planted: parts that are rows in a preset, so that `--recurrence lstm` ends in an error."""
    config = make_preset(name)
    reuse = config.reuse.fit_to_network(True, config.rollout.batch_size)

    assert reuse.part_kind == "unrolls"
    assert reuse.parts <= config.rollout.batch_size


def test_preset_cartpole_wide_makes_each_message_a_whole_batch() -> None:
    """Seen to fail with two actors of 32 slots: a batch then waits for the slower of two."""
    config = make_preset("cartpole_wide")

    assert config.environment.envs_per_actor == config.rollout.batch_size
    assert config.job.num_actors == config.transport.window == 1
    assert config.rollout.num_storage_slots == 2


def test_preset_of_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"one of cartpole, .*atari_paper, generic"):
        make_preset("doom")


TLS = {"tls_cert": "server.crt", "tls_key": "server.key"}
TOKEN = {"actor_token_file": "actor.token"}
INSECURE = {"allow_insecure_public_bind_without_tls": True}


@pytest.mark.parametrize(
    ("host", "transport", "security", "is_allowed"),
    [
        ("127.0.0.1", {}, {}, True),
        ("127.9.9.9", {}, {}, True),
        ("localhost", {}, {}, True),
        ("::1", {}, {}, True),
        ("unix:/run/learner.sock", {}, {}, True),
        ("0.0.0.0", {}, {}, False),
        ("::", {}, {}, False),
        ("127.evil.example.org", {}, {}, False),
        ("learner.example.org", {}, TLS, False),
        ("learner.example.org", {}, TOKEN, False),
        ("learner.example.org", {}, TLS | TOKEN, True),
        ("0.0.0.0", INSECURE, {}, True),
        ("0.0.0.0", INSECURE, TLS, True),
    ],
)
def test_host_that_others_can_reach_needs_tls_and_a_token(
    host: str, transport: dict[str, Any], security: dict[str, Any], is_allowed: bool
) -> None:
    """Seen to fail with hosts judged by `startswith("127.")`."""
    tables = {"transport": {"host": host, **transport}, "security": security}

    if is_allowed:
        assert unpack_config(tables, TrainConfig()).is_bound_insecurely == bool(transport)
        return
    with pytest.raises(ConfigError, match=r"--tls-cert DIR/server\.crt --tls-key DIR/server\.key"):
        unpack_config(tables, TrainConfig())
