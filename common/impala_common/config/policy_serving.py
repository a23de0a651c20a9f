"""PolicyServingConfig: settings of a policy server beside the learner, and of local thin actors.

The text under each field is its documentation, as in `impala_common.config.sections`.
"""

from __future__ import annotations

import dataclasses

from impala_common.config.checks import require_between, require_time
from impala_common.rpc.limits import LONGEST_S


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyServingConfig:
    """A policy server beside the learner, for thin actors.

    It has the learner's host, TLS and actor token.
    """

    thin: bool = False
    """impala-train starts thin actors and a policy server instead of actors; num_actors and
    envs_per_actor count those."""
    policy_port: int = 0
    """Port of a policy server beside the learner; 0: none (with thin: any), -1: any free one
    (written to RUN/policy_address)."""
    policy_batch_wait_ms: float = 2.0
    """Most milliseconds a thin actor's observation waits for others."""
    policy_slot_timeout_s: float = 60.0
    """Seconds of silence before the policy server gives up a slot."""
    policy_prometheus_port: int = 0
    """Policy server's Prometheus port, at prometheus_host; 0: none, -1: any free one."""

    def __post_init__(self) -> None:
        """Checks the rules of single fields."""
        require_between("policy_port", self.policy_port, -1, 65535)
        require_between("policy_prometheus_port", self.policy_prometheus_port, -1, 65535)
        require_between("policy_batch_wait_ms", self.policy_batch_wait_ms, 0, LONGEST_S * 1e3)
        require_time("policy_slot_timeout_s", self.policy_slot_timeout_s)

    @property
    def is_wanted(self) -> bool:
        """Whether a policy server is started."""
        return self.thin or self.policy_port != 0
