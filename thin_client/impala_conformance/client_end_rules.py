"""Rules of a client about its end: finished runs, errors that are final, SIGTERM; and its pings."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import grpc

from impala_conformance.client_peer import ClientPeer
from impala_conformance.client_recorded_rules import HOLD_S
from impala_conformance.client_session import ClientSession
from impala_conformance.client_streams import EarlyEndError, StillnessError
from impala_conformance.rule import Rule, require

_FINISHED = "after drain with FINISHED the client says goodbye as its last message and ends with 0"
_INVALID = "INVALID_ARGUMENT ends the client: not with 0, and with its text or reason on stderr"
_MISMATCH = "FAILED_PRECONDITION with SPEC_MISMATCH or PROTOCOL_MISMATCH ends the client likewise"
_STALE = "ABORTED with STALE_SESSION ends the client likewise"
_SECURITY = "UNAUTHENTICATED and PERMISSION_DENIED with their reasons end the client likewise"
_SIGTERM = "SIGTERM ends the client in time"
_PINGS = "a silent server is pinged every 3 s at most"
_POLL_S = 0.1
_SILENCE_S, _MOST_PINGS = 4.0, 2
_Code = grpc.StatusCode


def _check_finished(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        session.play(2)
        session.gather()
        session.drain(is_finished=True)
        while not session.is_goodbye:
            session.read("goodbye")
            require(not session.stream.is_over, "goodbye", "the end of the client's stream")
        session.end()
        code = session.wait_end()
        require(code == 0, "exit code 0", session.process.describe_end())


def _require_final(
    peer: ClientPeer, code: grpc.StatusCode, reason: str, *, is_at_hello: bool
) -> None:
    """Plays until the server refuses the client, which must end.

    Args:
      peer: the client.
      code: of the refusal.
      reason: of the refusal.
      is_at_hello: whether it comes in place of a welcome.
    """
    text = f"the kit refuses this client {secrets.token_hex(4)}"
    with peer.start() as session:
        session.accept()
        if not is_at_hello:
            session.welcome()
            session.play(2)
            session.gather()
        session.end(code, reason, text)
        found = session.wait_end()
        require(found != 0, f"an exit code but 0 after {code.name}", found)
        said = session.process.stderr
        expected = f"the text of {code.name} or {reason} on stderr"
        require(text in said or reason in said, expected, repr(said[-300:]))


def _check_final(*cases: tuple[grpc.StatusCode, str, bool]) -> Callable[[ClientPeer], None]:
    """Returns a check of (code, reason, whether it comes at hello)."""

    def check(peer: ClientPeer) -> None:
        for code, reason, is_at_hello in cases:
            _require_final(peer, code, reason, is_at_hello=is_at_hello)

    return check


def _check_sigterm(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        session.play(2)
        session.gather()
        session.process.terminate()
        _serve_until_over(session)
        session.wait_end()


def _serve_until_over(session: ClientSession) -> None:
    """Answers until the client has left its stream, and ends that."""
    end_s = time.monotonic() + session.patience_s
    while not session.is_goodbye and not session.stream.is_over:
        if session.judge.waiting:
            session.answer()
        try:
            session.read(timeout_s=_POLL_S)
        except StillnessError:
            if time.monotonic() > end_s:
                break
        except EarlyEndError:
            return
        if time.monotonic() > end_s:
            raise StillnessError(
                f"expected the client to leave within {session.patience_s:g} s of SIGTERM: it plays"
            )
    session.end()


def _check_pings(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        session.play(2)
        session.gather()
        session.listen(HOLD_S)  # pings that measure the connection belong to what was sent
        start_s = time.monotonic()
        session.listen(_SILENCE_S)
        num = session.relay.count_pings(start_s)
        require(
            num <= _MOST_PINGS, f"at most {_MOST_PINGS} pings in {_SILENCE_S:g} s of silence", num
        )
        session.play(1)


RULES: list[Rule[ClientPeer]] = [
    Rule("drain-finished", _FINISHED, _check_finished),
    Rule(
        "invalid-argument",
        _INVALID,
        _check_final((_Code.INVALID_ARGUMENT, "INVALID_REQUEST", False)),
    ),
    Rule(
        "mismatch",
        _MISMATCH,
        _check_final(
            (_Code.FAILED_PRECONDITION, "SPEC_MISMATCH", True),
            (_Code.FAILED_PRECONDITION, "PROTOCOL_MISMATCH", True),
        ),
    ),
    Rule("stale-session", _STALE, _check_final((_Code.ABORTED, "STALE_SESSION", False))),
    Rule(
        "security",
        _SECURITY,
        _check_final(
            (_Code.UNAUTHENTICATED, "UNAUTHENTICATED", True),
            (_Code.PERMISSION_DENIED, "PERMISSION_DENIED", True),
        ),
    ),
    Rule("sigterm", _SIGTERM, _check_sigterm),
    Rule("pings", _PINGS, _check_pings),
]
