"""Settings of a run, one frozen dataclass per concern; others beside this: job, evaluation, access.

The text under each field is its documentation: command lines, config.toml and
docs/configuration.md use it. Checks raise ConfigError with name, value, rule and consequence. Rules
that need two sections are in
`impala_common.config.train`. Derived values are properties, never fields.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal, get_args

import tyro

from impala_common.config.carried_sizes import require_carried
from impala_common.config.checks import (
    is_own_model,
    require,
    require_at_least,
    require_between,
    require_one_of,
    require_positive,
)
from impala_common.config.environment_options import validate_env_kwargs, validate_env_wrapper

MAX_STORAGE_SLOTS = 8192
"""Batch slots at most: so many hand-off messages (64 MiB) fit into the front end's buffer."""

InitMethod = Literal[
    "identity", "orthogonal", "xavier_uniform", "xavier_normal", "kaiming_uniform",
    "kaiming_normal",
]  # fmt: skip
INIT_METHODS = get_args(InitMethod)
"""Names of weight initialisations."""
EnvironmentBackendName = Literal["auto", "entry-point", "sync", "async", "ale", "envpool"]
"""Names of ways to vectorise environments."""
MODEL_NAMES = ("auto", "mlp", "nature_cnn", "minatar_cnn", "impala_resnet", "multi")
"""Names of shipped networks; auto chooses by the observation's shape."""


def _alias(*names: str) -> object:
    """Returns a tyro annotation that adds further option names (mostly the seed's)."""
    return tyro.conf.arg(aliases=[f"--{name}" for name in names])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvironmentConfig:
    """The environment, and how actors preprocess it."""

    env: str = ""
    """Gymnasium environment id, such as CartPole-v1 or ALE/Pong-v5."""
    envs_per_actor: int = 8
    """Environment slots of each actor; impala-train takes more where it starts fewer actors, unless
    this is set."""
    specs_file: str = ""
    """JSON file of environment specifications, as a run's specs.json; empty: from the first
    actor."""
    env_backend: EnvironmentBackendName = "auto"
    """How environments are vectorised. auto: ale for Atari; else the environment's vector entry
    point, unless env_kwargs or env_wrapper are set; else one loop (sync)."""
    env_kwargs: str = ""
    """Environment arguments as a JSON object, such as {"is_slippery": false}. Set them where actors
    start: the learner does not send them."""
    env_wrapper: tuple[str, ...] = ()
    """Wrappers (module:Wrapper, a class or function) around each environment, innermost first. Set
    them where actors start."""
    env_timeout_s: float = 600.0
    """Seconds for one step or reset of all slots before impala-train replaces the actor or
    evaluator, and before impala-eval ends; 0: no limit."""
    atari_frame_skip: int = 4
    """Emulator frames per agent step."""
    atari_frame_stack: int = 4
    """Newest frames in one observation."""
    atari_sticky_action_probability: float | None = None
    """Probability that the emulator repeats an action; none: the id's (v5 0.25, v4 0)."""
    atari_episodic_life: bool = False
    """Whether losing a life ends a training episode; reported returns are of whole games."""
    atari_fire_reset: bool = True
    """Whether FIRE is pressed after a reset in games that wait for it."""
    atari_noop_max: int = 30
    """Most random no-op actions after a reset."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_carried(self)
        require_positive("envs_per_actor", self.envs_per_actor)
        require_at_least("env_timeout_s", self.env_timeout_s, 0)
        require_positive("atari_frame_skip", self.atari_frame_skip)
        require_positive("atari_frame_stack", self.atari_frame_stack)
        require_at_least("atari_noop_max", self.atari_noop_max, 0)
        if self.atari_sticky_action_probability is not None:
            require_between(
                "atari_sticky_action_probability", self.atari_sticky_action_probability, 0.0, 1.0
            )
        validate_env_kwargs("env_kwargs", self.env_kwargs)
        validate_env_wrapper("env_wrapper", self.env_wrapper)

    @property
    def parsed_env_kwargs(self) -> dict[str, Any]:  # Any: JSON
        """Arguments of the environment."""
        return dict(json.loads(self.env_kwargs)) if self.env_kwargs else {}

    @property
    def changes_single_environments(self) -> bool:
        """Whether slots must be single environments, because there are arguments or wrappers."""
        return bool(self.parsed_env_kwargs or self.env_wrapper)

    def with_whole_games(self) -> EnvironmentConfig:
        """Returns the settings for evaluation: episodes are whole games."""
        return dataclasses.replace(self, atari_episodic_life=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    model: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(MODEL_NAMES) + ",MODULE:CLASS}")] = (
        "auto"
    )
    """Network. auto: mlp for vectors, minatar_cnn for images below 36 pixels, nature_cnn for larger
    ones, multi for images with other parts. Also impala_resnet, or your own module:Class, which
    every actor needs."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the MLP's hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the MLP's hidden layers."""
    feature_dim: int = 512
    """Width of an image encoder's output."""
    hidden_dim: int = 0
    """Width of memory, or of a dense layer before the heads; 0: memory of the encoder's width, no
    dense layer."""
    recurrence: Literal["none", "lstm", "gru"] = "none"
    """Memory after the encoder: lstm, gru or none."""
    init_method: Annotated[InitMethod, _alias("network-init-method", "init-fn")] = "orthogonal"
    """Weight initialisation: identity (torch's defaults), orthogonal, xavier_uniform,
    xavier_normal, kaiming_uniform or kaiming_normal."""
    use_previous_action_and_reward: bool = False
    """Whether the network gets the last action and (clipped) reward."""
    observation_scale: float | None = None
    """Factor on observations; none: 1/255 if all are uint8 of rank 2 or more, else 1. multi uses
    1/255 for those."""
    normalise_observations: bool = False
    """Whether running statistics normalise observations to mean 0 and deviation 1, before
    observation_scale: floats and integers, but neither uint8 pictures of 36 pixels and more nor
    bools."""
    observation_clip: float = 10.0
    """Normalised observations are clipped to [-observation_clip, observation_clip]."""
    log_std_init: float = 0.0
    """Initial log deviation of continuous actions, in [-5, 2]; 0: half a bounded action's range."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require(
            "model",
            self.model,
            self.model in MODEL_NAMES or is_own_model(self.model),
            "one of " + ", ".join(MODEL_NAMES) + " or module:Class",
        )
        require_one_of("recurrence", self.recurrence, ("none", "lstm", "gru"))
        require_one_of("activation", self.activation, ("tanh", "relu"))
        require_one_of("init_method", self.init_method, INIT_METHODS)
        require_carried(self)
        require_positive("feature_dim", self.feature_dim)
        require_positive("observation_clip", self.observation_clip)
        require_at_least("hidden_dim", self.hidden_dim, 0)
        require_between("log_std_init", self.log_std_init, -5.0, 2.0)
        require(
            "hidden_sizes",
            self.hidden_sizes,
            all(width > 0 for width in self.hidden_sizes),
            "widths greater than 0",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Unrolls, batches and the storage that holds them."""

    unroll_length: Annotated[int, _alias("num-steps")] = 20
    """T: agent steps of one unroll."""
    batch_size: int = 32
    """B: unrolls of one update."""
    num_storages: int = 96
    """Unrolls in rollout storage, rounded up to at least two whole batches; fewer keeps data
    fresh."""
    num_learners: int = 2
    """Learner threads: one updates, the others prepare batches."""
    max_policy_lag: int = 0
    """Updates an arriving unroll may lag before it is refused as STALE; 0: no limit."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_carried(self)
        require_positive("unroll_length", self.unroll_length)
        require_positive("batch_size", self.batch_size)
        require_positive("num_storages", self.num_storages)
        require(
            "num_storages",
            self.num_storages,
            self.num_storage_slots <= MAX_STORAGE_SLOTS,
            f"at most {MAX_STORAGE_SLOTS} batches of batch_size ({self.batch_size})",
            "while the learner is paused, the front end keeps a message for every full batch",
        )
        require_between("num_learners", self.num_learners, 1, 64)
        require_at_least("max_policy_lag", self.max_policy_lag, 0)

    @property
    def num_storage_slots(self) -> int:
        """Batch slots in rollout storage."""
        return max(2, -(-self.num_storages // self.batch_size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """V-trace and the three losses (docs/glossary.md has the formulas)."""

    discount: float = 0.99
    """Discount per agent step, in [0, 1]."""
    clip_rho_threshold: float | None = 1.0
    """rho-bar: clip of importance ratios in the TD error; none: unclipped."""
    clip_pg_rho_threshold: float | None = 1.0
    """Clip of importance ratios in the policy gradient; none: unclipped."""
    clip_c_threshold: float | None = 1.0
    """c-bar: clip of the trace coefficients, at most rho-bar; none: unclipped."""
    vtrace_lambda: float = 1.0
    """lambda in [0, 1]: 1 is the paper's; on-policy it is GAE's."""
    entropy_cost: Annotated[float, _alias("ent-coef")] = 0.01
    """Weight of the entropy bonus."""
    entropy_floor: float = 0.0
    """Entropy of each choice, as a share of uniform legal actions', below which it is worth more:
    see entropy_floor_cost. 0: none. Continuous actions have none."""
    entropy_floor_cost: float = 0.1
    """Weight of the entropy bonus below entropy_floor, on top of entropy_cost."""
    baseline_cost: Annotated[float, _alias("baseline-coef")] = 0.5
    """Weight of the value loss."""
    reward_normalisation: Literal["none", "return_std"] = "none"
    """return_std: rewards are divided by the running standard deviation of their discounted sums,
    before reward_scale."""
    reward_clipping: Literal["none", "clip", "sign"] = "none"
    """Learner's rewards: clip to [-1, 1], sign, or unchanged. Reported returns stay unclipped."""
    reward_scale: float = 1.0
    """Factor on rewards, before clipping."""
    loss_reduction: Literal["sum", "mean"] = "sum"
    """Sum losses over rows (the paper's, with eps 0.01 and max_grad_norm 40) or average them."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_between("discount", self.discount, 0.0, 1.0)
        require_between("vtrace_lambda", self.vtrace_lambda, 0.0, 1.0)
        for name in ("clip_rho_threshold", "clip_pg_rho_threshold", "clip_c_threshold"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        if self.clip_rho_threshold is not None:
            require(
                "clip_c_threshold",
                self.clip_c_threshold,
                self.clip_c_threshold is not None
                and self.clip_c_threshold <= self.clip_rho_threshold,
                f"at most clip_rho_threshold ({self.clip_rho_threshold})",
                "V-trace's contraction is proven for rho-bar >= c-bar only",
            )
        require_at_least("entropy_cost", self.entropy_cost, 0.0)
        require_between("entropy_floor", self.entropy_floor, 0.0, 1.0)
        require_at_least("entropy_floor_cost", self.entropy_floor_cost, 0.0)
        require_at_least("baseline_cost", self.baseline_cost, 0.0)
        require_positive("reward_scale", self.reward_scale)
        require_one_of("reward_normalisation", self.reward_normalisation, ("none", "return_std"))
        require_one_of("reward_clipping", self.reward_clipping, ("none", "clip", "sign"))
        require_one_of("loss_reduction", self.loss_reduction, ("sum", "mean"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its schedule."""

    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """RMSProp as in torch (eps outside the root, average from 0), or Adam."""
    learning_rate: Annotated[float, _alias("lr")] = 6e-4
    """Learning rate at step 0."""
    learning_rate_schedule: Literal["linear", "constant"] = "linear"
    """Constant, or linear down to 0 at total_steps."""
    eps: float = 0.01
    """Term added to the optimizer's denominator."""
    rmsprop_alpha: float = 0.99
    """Decay of RMSProp's average of squares."""
    rmsprop_momentum: float = 0.0
    """Momentum of RMSProp."""
    adam_beta1: float = 0.9
    """Decay of Adam's average of gradients."""
    adam_beta2: float = 0.999
    """Decay of Adam's average of squares."""
    max_grad_norm: float = 40.0
    """Gradients are scaled down to this global norm; 0: never."""
    max_nonfinite_updates: int = 5
    """Non-finite updates skipped in a row, after which when_diverged applies."""
    when_diverged: Literal["auto", "pause", "end"] = "auto"
    """After max_nonfinite_updates, or without device memory for an update: pause for an
    administrator, or end with an error. auto: impala-server pauses, others end."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_one_of("optimizer", self.optimizer, ("rmsprop", "adam"))
        require_one_of(
            "learning_rate_schedule", self.learning_rate_schedule, ("linear", "constant")
        )
        require_positive("learning_rate", self.learning_rate)
        require_positive("eps", self.eps)
        require_at_least("max_grad_norm", self.max_grad_norm, 0.0)
        require_positive("max_nonfinite_updates", self.max_nonfinite_updates)
        require_one_of("when_diverged", self.when_diverged, ("auto", "pause", "end"))
        for name in ("rmsprop_alpha", "adam_beta1", "adam_beta2"):
            value = getattr(self, name)
            require(name, value, 0.0 <= value < 1.0, "in [0, 1)")
        require_between("rmsprop_momentum", self.rmsprop_momentum, 0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """The wire, the front end and the actors on it."""

    host: str = "127.0.0.1"
    """Address the learner listens on."""
    port: int = 50051
    """Learner's port; 0: any free one (written to RUN/address), which impala-train takes unless it
    is set."""
    front_end: Literal["process", "in-process"] = "process"
    """gRPC front end. process: a process of its own; in-process: a thread, for debugging."""
    window: int = 2
    """Messages, 1 to 16, an actor may have without a verdict."""
    max_actors: int = 256
    """Most actors connected at a time."""
    capacity_timeout_s: float = 30.0
    """Seconds a message waits for rollout storage before its verdict is CAPACITY."""
    publish_interval_updates: int = 1
    """Updates between published weight snapshots."""
    weights_refresh: Literal["unroll", "step"] = "unroll"
    """Actors take newer weights before each unroll, or before each step (fresher data)."""
    allow_insecure_public_bind_without_tls: bool = False
    """Let anyone who reaches the port read weights and inject data. Not for open networks."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_between("port", self.port, 0, 65535)
        require_between("window", self.window, 1, 16)
        require_between("max_actors", self.max_actors, 1, 4096)
        require_positive("capacity_timeout_s", self.capacity_timeout_s)
        require_positive("publish_interval_updates", self.publish_interval_updates)
        require_one_of("weights_refresh", self.weights_refresh, ("unroll", "step"))
        require_one_of("front_end", self.front_end, ("process", "in-process"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints and logs of a run."""

    checkpoint_interval_s: float = 60.0
    """Seconds between checkpoints; one more comes at the end."""
    checkpoint_interval_steps: int = 0
    """Agent steps between checkpoints, too; 0: by time only."""
    keep_checkpoints: int = 3
    """Newest checkpoints kept."""
    log_interval_s: float = 1.0
    """Seconds between lines of metrics.jsonl and TensorBoard."""
    tensorboard: bool = True
    """Whether TensorBoard event files are written."""
    wandb_project: str = ""
    """W&B project for metrics, settings and videos; empty: none (extra: wandb)."""
    wandb_entity: str = ""
    """W&B account or team; empty: the login's."""
    wandb_group: str = ""
    """W&B group, such as an experiment's seeds; empty: none."""
    mlflow_experiment: str = ""
    """MLflow experiment for metrics, settings and videos; empty: none (extra: mlflow; server:
    MLFLOW_TRACKING_URI)."""
    prometheus_port: int = 0
    """Prometheus port, /metrics over HTTP; 0: none, -1: any free one."""
    prometheus_host: str = "127.0.0.1"
    """Address of the Prometheus endpoint, which every client may read."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_positive("checkpoint_interval_s", self.checkpoint_interval_s)
        require_at_least("checkpoint_interval_steps", self.checkpoint_interval_steps, 0)
        require_positive("keep_checkpoints", self.keep_checkpoints)
        require_positive("log_interval_s", self.log_interval_s)
        require_between("prometheus_port", self.prometheus_port, -1, 65535)
        require("prometheus_host", self.prometheus_host, bool(self.prometheus_host), "an address")

    def is_due(self, passed_s: float, num_steps: int) -> bool:
        """Returns whether to write a checkpoint, so long and so many steps after the last one."""
        interval_steps = self.checkpoint_interval_steps
        return passed_s >= self.checkpoint_interval_s or 0 < interval_steps <= num_steps
