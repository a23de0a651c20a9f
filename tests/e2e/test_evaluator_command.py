"""impala-evaluator as a process of its own, through TLS and with a token, as on another machine."""

from __future__ import annotations

import signal
from pathlib import Path

from commands import Command
from listener_kit import security_of
from running_server import TINY, RunningServer, make_config

from impala_actor.admin.certs_command import make_certificates
from impala_common.process.exit_codes import NO_PERMISSION, OK
from impala_common.rpc.security import ClientSecurity
from impala_common.rpc.tokens import make_token
from impala_common.run import metrics
from impala_common.run.checkpoints import CheckpointStore

BANDIT = TINY + "ContextualBandit-v0"


def test_evaluator_judges_through_tls_with_the_token_and_with_no_other(tmp_path: Path) -> None:
    """Planted: the command's token left out; its CA left out."""
    certs = tmp_path / "certs"
    make_certificates(certs)
    wrong = certs / "wrong.token"
    wrong.write_text(make_token())
    wrong.chmod(0o600)
    config = make_config(
        evaluation={"eval_interval_steps": 1000, "eval_interval_episodes": 4},
        security=security_of(certs, tls=True),
    )
    ca, actors = str(certs / "ca.crt"), str(certs / "actor.token")
    token = str(certs / "evaluator.token")
    with RunningServer(tmp_path / "run", config) as server:
        options = ("--server", server.address, "--env", BANDIT, "--ca-file", ca)
        with (
            Command(tmp_path, "impala-evaluator", *options, "--token-file", token) as good,
            Command(tmp_path, "impala-evaluator", *options, "--token-file", str(wrong)) as bad,
        ):
            server.run_actor(BANDIT, security=ClientSecurity(ca_file=ca, token_file=actors))
            server.wait_until(lambda status: metrics.EVALUATION_BEST in status)
            good.interrupt(signal.SIGTERM)

            assert good.wait() == OK
            assert bad.wait() == NO_PERMISSION
            assert "does not know this token" in bad.err
        server.stop()

    best = CheckpointStore(server.run.checkpoints_path).load("best")
    assert best.state["evaluation"]["sampled"]["num_episodes"] >= 4
    assert not (server.run.path / "videos").exists()
