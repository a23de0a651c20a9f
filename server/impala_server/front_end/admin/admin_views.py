"""Packs the front end's state into messages of the admin service."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from impala_common.errors import CheckpointError
from impala_common.process.installation import find_version
from impala_common.rpc.limits import PROTOCOL_VERSION
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore
from impala_common.spec.specs import ModelSpec
from impala_rl.v1 import admin_pb2, header_pb2
from impala_server.front_end.data_plane.sessions import ActorSession
from impala_server.front_end.learner_link import OpenRun
from impala_server.front_end.monitoring.server_facts import ServerFacts

_MAX_NAMED = 8
_METRICS = frozenset(metrics.ALL_METRICS)
_VERSION = find_version()


def pack_state(name: str) -> Any:  # Any: the stubs have no type for enum values
    """Returns the wire's value of a state's name."""
    return admin_pb2.LearnerState.Value(f"LEARNER_STATE_{name}")


def pack_header(facts: ServerFacts) -> header_pb2.LearnerHeader:
    """Returns the learner's life and version; zeros where there is no run yet."""
    run = facts.link.run
    return run.header() if run is not None else header_pb2.LearnerHeader()


def pack_status(facts: ServerFacts) -> admin_pb2.LearnerStatus:
    """Returns the learner's status, from memory alone."""
    link, status = facts.link, facts.link.status
    run = link.run
    now_s = time.monotonic()
    numbers = {
        name: float(value)
        for name, value in status.metrics.items()
        if name in _METRICS and value is not None and math.isfinite(value)
    }
    if run is not None:
        numbers[metrics.QUEUE_FILL] = run.intake.storage_fill
        numbers[metrics.ACTORS_CONNECTED] = run.sessions.num_connected
    return admin_pb2.LearnerStatus(
        learner=pack_header(facts),
        state=pack_state("STOPPED" if link.lost.is_set() else status.state),
        run_path=str(facts.run.path.absolute()),
        environment_id=facts.config.environment.env,
        total_steps=(
            facts.config.job.total_steps if status.total_steps is None else status.total_steps
        ),
        metrics=numbers,
        last_checkpoint=status.last_checkpoint,
        device=status.device,
        model=_describe(run.model) if run is not None else "",
        bottleneck=status.bottleneck,
        storage_bytes=run.storage_bytes if run is not None else 0,
        connected_actor_count=run.sessions.num_connected if run is not None else 0,
        banned_actor_count=len(run.sessions.banned) if run is not None else 0,
        address=facts.address,
        software_version=_VERSION,
        protocol_version=PROTOCOL_VERSION,
        uptime=pack_duration(now_s - facts.start_s),
        age=pack_duration(now_s - link.heard_s),
        trouble=status.trouble,
        findings=(*_describe_quarantine(run), *status.findings),
    )


def pack_session(session: ActorSession) -> admin_pb2.ActorStatus:
    """Returns one actor."""
    activity = session.activity
    return admin_pb2.ActorStatus(
        actor_id=session.actor_id,
        host=session.host,
        actor_index=session.index,
        session_epoch=session.epoch,
        is_connected=session.num_streams > 0,
        environment_slot_count=session.num_environment_slots,
        steps_per_second=activity.steps_per_s,
        accepted_unroll_count=activity.accepted,
        duplicate_unroll_count=activity.duplicates,
        rejected_unroll_count=activity.rejected,
        policy_lag=activity.policy_lag,
        last_seen=pack_duration(activity.silent_s),
    )


def pack_checkpoints(store: CheckpointStore) -> list[admin_pb2.CheckpointInfo]:
    """Returns all checkpoints that can be described, oldest step first. Reads the disk."""
    infos = []
    for name in store.all_names():
        with contextlib.suppress(CheckpointError):  # damaged, or removed meanwhile
            infos.append(pack_checkpoint(store, name))
    return sorted(infos, key=lambda info: (info.trained_steps, info.save_time.ToNanoseconds()))


def pack_checkpoint(store: CheckpointStore, name: str) -> admin_pb2.CheckpointInfo:
    """Returns one checkpoint; raises CheckpointError for a damaged one. Reads the disk."""
    summary = store.describe(name)
    save_time = timestamp_pb2.Timestamp()
    save_time.FromNanoseconds(int(summary.saved_s * 1e9))
    counters = summary.state.get("counters")
    version = counters.get("policy_version", 0) if isinstance(counters, dict) else 0
    return admin_pb2.CheckpointInfo(
        name=name,
        trained_steps=summary.step,
        policy_version=version if isinstance(version, int) else 0,
        total_bytes=summary.num_bytes,
        save_time=save_time,
        is_kept=summary.is_kept,
    )


def pack_duration(seconds: float) -> duration_pb2.Duration:
    """Returns a duration."""
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(max(0.0, seconds) * 1e9))
    return duration


def _describe_quarantine(run: OpenRun | None) -> list[str]:
    """Returns a sentence for each quarantined actor, at most _MAX_NAMED of them."""
    quarantined = run.sessions.quarantined if run is not None else {}
    texts = [f"actor {name} is quarantined: {text}" for name, text in quarantined.items()]
    more = [f"{len(texts) - _MAX_NAMED} more actors are quarantined"]
    return texts[:_MAX_NAMED] + (more if len(texts) > _MAX_NAMED else [])


def _describe(model: ModelSpec) -> str:
    return (
        model.name if model.recurrence == "none" else f"{model.name} + {model.recurrence.upper()}"
    )
