"""impala-policy-server: plays for thin actors, as an actor of a learner or with a finished run.

Imports torch only after the arguments have been parsed, so that --help and errors are fast.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from impala_actor.acting.stop_signals import end_process
from impala_common.errors import ImpalaError
from impala_common.process.absolute_paths import absolute_address
from impala_common.process.allocator import keep_large_buffers
from impala_common.process.cuda_probe import require_device
from impala_common.process.exit_codes import INTERRUPTED, OK, exit_code_of
from impala_common.process.installation import show_version
from impala_common.process.logs import configure_logging, write_line
from impala_common.process.parent import find_parent, is_parent_gone
from impala_common.process.standard_streams import prepare_standard_streams
from impala_common.run.run_directory import write_named_file
from impala_policy_server.arguments import PolicyServerArguments

if TYPE_CHECKING:  # imported late: it needs torch
    from impala_policy_server.policy_source import PolicySource
    from impala_policy_server.process import Bound, ServingSettings

_LOG = logging.getLogger(__name__)
_LEAVE_S = 10


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    prepare_standard_streams()
    code = run(sys.argv[1:] if argv is None else argv)
    end_process(code)


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        show_version("impala-policy-server", argv)
        arguments = tyro.cli(PolicyServerArguments, prog="impala-policy-server", args=list(argv))
        level = logging.INFO if arguments.verbose else logging.WARNING
        configure_logging(level, "policy-server", arguments.log_format)
        _serve(arguments)
    except ImpalaError as error:
        write_line("error", f"error: {error}")
        return exit_code_of(error)
    return OK


def _serve(arguments: PolicyServerArguments) -> None:
    listening = arguments.listening()
    require_device("--device", arguments.device)
    if arguments.policy:
        _require_policy(arguments)
    else:
        arguments.security.make_credentials(arguments.learner)  # its files, before torch
    # numpy's matrix products are small here: further threads would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(arguments.torch_threads))
    keep_large_buffers()
    import torch

    from impala_policy_server.policy_admin_plane import AdminSettings
    from impala_policy_server.process import ServingSettings

    address_file, audit_file = arguments.admin_paths
    wanted = listening.admin.admin_address
    torch.set_num_threads(arguments.torch_threads)
    settings = ServingSettings(
        listening=listening,
        max_clients=arguments.max_clients,
        max_batch_wait_s=arguments.max_batch_wait_ms / 1e3,
        slot_timeout_s=arguments.slot_timeout_s,
        admin=AdminSettings(
            address="" if wanted == "none" else wanted,
            address_file=address_file,
            audit_file=audit_file,
        ),
        prometheus_host=arguments.prometheus_host,
        prometheus_port=arguments.prometheus_port,
    )
    asyncio.run(_serve_until_signal(arguments, settings, lambda: _make_source(arguments)))


async def _serve_until_signal(
    arguments: PolicyServerArguments,
    settings: ServingSettings,
    make_source: Callable[[], PolicySource],
) -> None:
    from impala_policy_server.process import serve

    loop = asyncio.get_running_loop()
    parent = find_parent() if arguments.exit_with_parent else 0

    def on_bound(bound: Bound) -> None:
        is_asked = False

        def on_signal(why: str) -> None:
            nonlocal is_asked
            if is_asked:
                os._exit(INTERRUPTED)
            is_asked = True
            signal.alarm(_LEAVE_S)  # a learner that does not answer must not hold up the end
            bound.request_end(why)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal, f"{number.name} came")
        loop.add_signal_handler(signal.SIGALRM, os._exit, OK)
        if arguments.exit_with_parent:
            _watch_parent(loop, parent, lambda: on_signal("the parent process is gone"))
        if arguments.address_file:
            path = Path(arguments.address_file)
            write_named_file("--address-file", path, bound.address + "\n")
        whose = arguments.policy or f"the learner at {arguments.learner}"
        write_line("info", f"policy server at {bound.address}, with the policy of {whose}")
        if bound.prometheus_address:
            write_line("info", f"metrics at http://{bound.prometheus_address}/metrics")

    await serve(settings, make_source, on_bound)


def _watch_parent(
    loop: asyncio.AbstractEventLoop, parent: int, on_gone: Callable[[], None]
) -> None:
    """Calls `on_gone` within a second of the end of the process `parent`."""
    if is_parent_gone(parent):
        on_gone()
        return
    loop.call_later(1.0, _watch_parent, loop, parent, on_gone)


def _require_policy(arguments: PolicyServerArguments) -> None:
    """Raises an error for a folder of neither a run nor an exported policy, without torch."""
    from impala_actor.evaluation.output_places import require_runs
    from impala_common.policy.exported_policy import holds_exported_policy

    if not holds_exported_policy(Path(arguments.policy)):
        require_runs((Path(arguments.policy),), arguments.checkpoint or None)


def _make_source(arguments: PolicyServerArguments) -> PolicySource:
    from impala_actor.acting.learner_client import default_actor_id
    from impala_common.policy.exported_policy import load_policy
    from impala_common.policy.frozen_policy import NetworkPolicy
    from impala_common.process.devices import resolve_device
    from impala_policy_server.engine_settings import EngineSettings
    from impala_policy_server.frozen_source import FrozenSource
    from impala_policy_server.learner_source import LearnerSource

    device = "cpu" if arguments.device == "auto" else str(resolve_device(arguments.device))
    settings = EngineSettings(
        max_slots=arguments.max_slots,
        max_batch_size=min(arguments.max_batch_size, arguments.max_slots),
        device=device,
        inference_backend=arguments.inference_backend,
        model=arguments.model,
    )
    if arguments.policy:
        policy = load_policy(
            arguments.policy, arguments.checkpoint or None, arguments.model, runtime="torch"
        )
        assert isinstance(policy, NetworkPolicy)
        return FrozenSource(policy, settings, arguments.seed)
    return LearnerSource(
        absolute_address(arguments.learner),
        arguments.actor_id or default_actor_id(),
        settings,
        connect_timeout_s=arguments.connect_timeout_s,
        security=arguments.security,
    )
