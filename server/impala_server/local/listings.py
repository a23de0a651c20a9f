"""The texts of impala-train's --list-presets, --list-envs and --dry-run. Nothing is started."""

from __future__ import annotations

import json
import sys

from impala_common.config import TrainConfig
from impala_common.config.presets import PRESETS, example_environments
from impala_common.config.toml_io import dump_config
from impala_common.errors import ImpalaError
from impala_common.process.answering import run_to_its_end
from impala_common.spec.specs import EnvironmentSpec, UnrollSpec
from impala_server.local.tuning import estimate_memory_mib, find_machine_facts
from impala_server.storage.layout import StorageLayout

_LIST_S = 60.0


def describe_presets() -> str:
    """Returns a line for each preset: name, environments, steps, network, purpose."""
    lines = []
    for name, make in PRESETS.items():
        config = make()
        purpose = " ".join((make.__doc__ or "").split()).rstrip(".")
        network = config.model.model + (
            f"+{config.model.recurrence}" if config.model.recurrence != "none" else ""
        )
        lines.append(
            f"{name:<16}{example_environments(name):<28}{config.job.total_steps:>12,} steps  "
            f"{network:<18}{purpose}"
        )
    return "\n".join(lines) + "\n"


def describe_environments(pattern: str) -> str:
    """Returns a line for each environment that can be made here: id and preset.

    Raises:
      ImpalaError: the process that looks for them failed.
    """
    command = [sys.executable, "-m", "impala_actor.environment_list", pattern]
    try:
        done = run_to_its_end(command, _LIST_S)
        found = json.loads(done.out)
    except TimeoutError as error:
        raise ImpalaError(f"the environments could not be listed: {error}") from error
    except ValueError as error:  # its process died
        raise ImpalaError(f"the environments could not be listed: {done.reason}") from error
    if not found:
        return f"no environment that is installed here matches {pattern}\n"
    width = max(len(env) for env, _preset in found) + 2
    return "".join(f"{env:<{width}}preset {preset}\n" for env, preset in found)


def describe_dry_run(config: TrainConfig, environment: EnvironmentSpec | None, run: str) -> str:
    """Returns what a training would start and need, as comments above its config.toml.

    Args:
      config: all settings.
      environment: specification of the environment; None: it could not be found out.
      run: folder of the run.
    """
    job, rollout = config.job, config.rollout
    slots = config.environment.envs_per_actor
    kind = "thin actor" if config.policy_server.thin else "actor"
    lines = [
        f"run          {run}",
        f"starts       a front end, a learner ({job.device}, {rollout.num_learners} learner "
        f"threads), {job.num_actors} {kind}{'' if job.num_actors == 1 else 's'} with {slots} "
        "environment slots each",
    ]
    if config.policy_server.is_wanted:
        lines.append("             a policy server for thin actors")
    interval = config.evaluation.eval_interval_steps
    if interval:
        lines.append(f"             an evaluator, every {interval:,} steps")
    storage_mib = 0.0
    if environment is not None:
        details, storage_mib = _describe_sizes(config, environment)
        lines += details
    facts = find_machine_facts()
    needed = estimate_memory_mib(config) + storage_mib
    free = "" if facts.free_mib is None else f" of {facts.free_mib:,} MiB that are free"
    lines.append(f"memory       about {needed:,.0f} MiB{free}; {facts.num_cores} cores")
    lines.append("nothing was started; what follows is the run's config.toml")
    return "".join(f"# {line}\n" for line in lines) + "\n" + dump_config(config)


def _describe_sizes(config: TrainConfig, environment: EnvironmentSpec) -> tuple[list[str], float]:
    """Returns lines about network, unrolls and storage, and the MiB of storage.

    Raises:
      ConfigError: the network does not fit the environment.
      ModelError: it cannot be made here.
    """
    from impala_common.models.registry import make_model, resolve_model_spec  # loads torch

    rollout = config.rollout
    is_normalised = config.loss.reward_normalisation != "none"
    model_spec = resolve_model_spec(config.model, environment, is_normalised)
    model = make_model(model_spec, environment, seed=0)
    unroll = UnrollSpec(rollout.unroll_length, environment, model.agent_state_specs())
    layout = StorageLayout(unroll, rollout.batch_size, rollout.num_storage_slots)
    num_parameters = sum(tensor.numel() for tensor in model.parameters())
    num_bytes = sum(
        tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()
    )
    leaves = ", ".join(
        f"{leaf.name} {leaf.dtype} {list(leaf.shape)}" for leaf in environment.observation_leaves
    )
    parts = ", ".join(
        f"{part.name} {part.kind} {list(part.sizes or part.shape)}"
        for part in environment.action.parts
    )
    slots = config.environment.envs_per_actor
    return [
        f"environment  {config.environment.env}: {leaves}; {parts}",
        f"network      {model_spec.name}, {num_parameters:,} parameters, {_size(num_bytes)} of "
        "weights to each actor",
        f"unrolls      T = {rollout.unroll_length}, {_size(unroll.num_bytes)} each; a message of "
        f"{slots} has {_size(unroll.num_bytes * slots)} before compression; "
        f"B = {rollout.batch_size}",
        f"storage      {rollout.num_storage_slots} batches, {_size(layout.num_bytes)}",
    ], layout.num_bytes / 2**20


def _size(num_bytes: float) -> str:
    """Returns a size for people."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
