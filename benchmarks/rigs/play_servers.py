"""Servers of PolicyService.Play alone, each a process: a policy server, and a bare echo beside it.

    python -m benchmarks.rigs.play_servers policy|echo   # prints its address, ends with stdin

The policy server plays with a small network of random weights and no learner. The echo answers
each message of observations with an action for each slot, and knows nothing else: what grpc.aio
itself costs.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Any

import psutil

_OBSERVATION_WIDTH = 4
_WAIT_S = 60.0


class PlayServer:
    """One of them as a process; ended at the end of the context.

    Attributes:
      address: HOST:PORT.
      process: to read its memory and CPU time from outside.
    """

    def __init__(self, kind: str) -> None:
        """Prepares: `kind` is policy or echo."""
        self._command = [sys.executable, "-m", "benchmarks.rigs.play_servers", kind]
        self.address = ""

    def __enter__(self) -> PlayServer:
        """Starts it and waits for its address."""
        self._body = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._body.stdout is not None
        self.address = self._body.stdout.readline().strip()
        self.process = psutil.Process(self._body.pid)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it."""
        assert self._body.stdin is not None
        self._body.stdin.close()
        try:
            self._body.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            self._body.kill()


async def _serve_echo() -> None:
    import grpc

    from impala_common.rpc.channel import server_options
    from impala_rl.v1 import policy_pb2, policy_pb2_grpc

    class Echo(policy_pb2_grpc.PolicyServiceServicer):
        async def Play(self, requests: Any, context: Any) -> None:  # noqa: N802
            while (request := await context.read()) is not grpc.aio.EOF:
                given = request.observations
                if request.WhichOneof("payload") == "hello":
                    answer = policy_pb2.PlayResponse(welcome=policy_pb2.PlayWelcome())
                else:
                    answer = policy_pb2.PlayResponse()
                    answer.actions.slots.extend(given.slots)
                    answer.actions.step_numbers.extend(given.step_numbers)
                    answer.actions.parts.append(bytes(8 * len(given.slots)))
                await context.write(answer)

    server = grpc.aio.server(options=server_options())
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(Echo(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _announce(f"127.0.0.1:{port}")
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0.0)


def _serve_policy() -> None:
    import torch

    from impala_common.config import EnvironmentConfig, ModelConfig, TrainConfig, TransportConfig
    from impala_common.models.registry import make_model, resolve_model_spec
    from impala_common.policy.frozen_policy import NetworkPolicy
    from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec
    from impala_policy_server.engine_settings import EngineSettings
    from impala_policy_server.frozen_source import FrozenSource
    from impala_policy_server.process import Bound, ServingSettings, serve

    torch.set_num_threads(1)
    leaf = TensorSpec("observation", (_OBSERVATION_WIDTH,), "float32")
    environment = EnvironmentSpec((leaf,), ActionSpec.discrete(2))
    spec = resolve_model_spec(ModelConfig(), environment, False)
    policy = NetworkPolicy(
        env="",
        environment=environment,
        environment_config=EnvironmentConfig(),
        model_spec=spec,
        step=0,
        model=make_model(spec, environment, seed=1),
    )

    def on_bound(bound: Bound) -> None:
        _announce(bound.address)
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, lambda: (sys.stdin.read(), bound.request_end("asked to")))

    settings = ServingSettings(
        listening=TrainConfig(transport=TransportConfig(port=0)), max_clients=2048
    )
    asyncio.run(serve(settings, lambda: FrozenSource(policy, EngineSettings(), 0), on_bound))


def _announce(address: str) -> None:
    sys.stdout.write(address + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        asyncio.run(_serve_echo())
    else:
        _serve_policy()
