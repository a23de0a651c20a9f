"""RunningPolicyServer: a policy server inside the test's process, with real gRPC.

    with RunningServer(tmp_path) as server, RunningPolicyServer(server.address) as policy:
        with policy.client(ENVIRONMENT, 4) as client:
            ...

Leaving the context ends it and raises what it failed with.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from running_server import make_config

from impala_common.rpc.security import ClientSecurity
from impala_policy_server.engine_settings import EngineSettings
from impala_policy_server.learner_source import LearnerSource
from impala_policy_server.policy_source import PolicySource
from impala_policy_server.process import Bound, ServingSettings, serve
from impala_thin import Environment, SlotsClient
from impala_thin.hello import ClientSettings

_END_S = 20.0
_names = itertools.count()


class RunningPolicyServer:
    """One policy server on a thread.

    Attributes:
      address: HOST:PORT, once entered.
      bound: its other addresses, once entered.
      source: its source, once entered.
    """

    def __init__(
        self,
        learner: str = "",
        *,
        make_source: Callable[[], PolicySource] | None = None,
        security: dict[str, Any] | None = None,
        port: int = 0,
        learner_security: ClientSecurity | None = None,
        **settings: Any,
    ) -> None:
        """Prepares.

        Args:
          learner: address of the learner.
          make_source: another source of the policy.
          security: settings of its port.
          port: to listen on.
          learner_security: towards the learner.
          **settings: further fields of ServingSettings.
        """
        config = make_config(transport={"port": port}, security=security or {})
        self._settings = ServingSettings(listening=config, **settings)
        self._make = make_source or (
            lambda: LearnerSource(
                learner,
                f"policy-{next(_names)}",
                EngineSettings(max_slots=512, inference_backend="eager"),
                connect_timeout_s=20.0,
                security=learner_security,
            )
        )
        self.address = ""
        self.error: BaseException | None = None
        self.source: Any = None
        self.bound: Bound | None = None
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-policy-server")

    def __enter__(self) -> RunningPolicyServer:
        """Starts it and waits until the port is open."""
        self._thread.start()
        assert self._bound.wait(_END_S), "the policy server did not open its port"
        if self.error is not None:
            raise self.error
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Ends it."""
        self.stop()
        if error is None and self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Asks it to end and waits."""
        if self.bound is not None:
            self.bound.request_end("the test ends it")
        self.join()

    def join(self) -> None:
        """Waits until it has ended by itself."""
        self._thread.join(_END_S)
        assert not self._thread.is_alive(), "the policy server did not end"

    def client(self, environment: Environment, num_slots: int = 1, **settings: Any) -> SlotsClient:
        """Returns a client of it."""
        settings = {"connect_timeout_s": 20.0} | settings
        return SlotsClient(
            environment,
            num_slots,
            settings=ClientSettings(server=self.address, **settings),
        )

    def _run(self) -> None:
        def make() -> PolicySource:
            self.source = self._make()
            return self.source

        def on_bound(bound: Bound) -> None:
            self.address, self.bound = bound.address, bound
            self._bound.set()

        try:
            asyncio.run(serve(self._settings, make, on_bound))
        except BaseException as error:
            self.error = error
        finally:
            self._bound.set()
