"""Rules of a client about streams that break, are drained or refused at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from impala_conformance.client_peer import ClientPeer
from impala_conformance.client_recorded_rules import HOLD_S, make_recorded_rule
from impala_conformance.client_session import ClientSession
from impala_conformance.client_streams import EarlyEndError, StillnessError
from impala_conformance.rule import Rule, ViolationError

_RESET = "after RST_STREAM the client opens another stream"
_HELLO = "each further stream has the same hello: name, life, slots and environment"
_UNANSWERED = "what has no answer is sent again on the new stream, before anything further"
_REPETITION = "an observation that is sent again has the same number and the same content"
_UNAVAILABLE = "after UNAVAILABLE without a reason the client goes on with another stream"
_UNKNOWN = "after UNKNOWN without a reason the client goes on with another stream"
_FOREIGN = "after UNAUTHENTICATED without a reason (of a proxy) the client goes on, too"
_RESTART = "after a restart of the server at its address the client goes on, and resets lost slots"
_GOAWAY = "after GOAWAY the stream goes on, and the next one has another connection"
_STOPPING = "after drain with STOPPING the client comes back as after a broken stream"
_CAPACITY = "after RESOURCE_EXHAUSTED with CAPACITY the client tries again"
_BACKOFF = "streams that end with UNAVAILABLE at once are opened with backoff"
_WELCOMED = "streams that are welcomed and drained at once are opened with backoff"
_INTERNAL_ERROR = 2
_WATCH_S, _MOST_STREAMS = 2.0, 20


@contextlib.contextmanager
def _charged(session: ClientSession, rule: str) -> Iterator[None]:
    """A context in which a client that ends, or does nothing, breaks `rule`."""
    try:
        yield
    except (EarlyEndError, StillnessError) as error:
        session.note(rule, str(error))
        raise


def break_stream(session: ClientSession) -> None:
    """Resets a stream on which half of the slots have their answers, and plays on."""
    session.open()
    session.play(3)
    session.gather()
    half = session.num_slots // 2
    session.answer(range(half))
    session.listen(HOLD_S)
    session.relay.reset_stream(_INTERNAL_ERROR)
    with _charged(session, "reset-stream"):
        session.open()
    with _charged(session, "unanswered"):
        session.gather(range(half, session.num_slots))
    session.answer()
    session.play(2)


def _check_break(break_off: Callable[[ClientSession], None]) -> Callable[[ClientPeer], None]:
    """Returns a check: what `break_off` does ends the stream, and the client goes on."""

    def check(peer: ClientPeer) -> None:
        with peer.start() as session:
            session.open()
            session.play(2)
            session.gather()
            break_off(session)
            session.open()
            session.play(3)

    return check


def _end_unavailable(session: ClientSession) -> None:
    session.end(grpc.StatusCode.UNAVAILABLE, text="the kit is away")


def _end_unknown(session: ClientSession) -> None:
    session.end(grpc.StatusCode.UNKNOWN, text="Stream removed")


def _end_foreign(session: ClientSession) -> None:
    session.end(grpc.StatusCode.UNAUTHENTICATED, text="the proxy lets nobody pass")


def _restart(session: ClientSession) -> None:
    session.relay.go_down()
    session.judge.forget()
    threading.Event().wait(HOLD_S)  # the server is away
    session.relay.come_up()


def _go_away(session: ClientSession) -> None:
    session.relay.go_away()
    session.answer()
    session.play(2)
    session.gather()
    _drain(session)


def _drain(session: ClientSession) -> None:
    session.drain(is_finished=False)
    session.end()


def _check_capacity(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.accept()
        session.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPACITY", "no room for this client")
        session.open()
        session.play(2)


def _check_backoff(is_welcomed: bool) -> Callable[[ClientPeer], None]:
    """Returns a check of how often a client comes to a server that ends each stream."""

    def check(peer: ClientPeer) -> None:
        with peer.start() as session:
            session.accept()
            start_s, num_streams = time.monotonic(), 0
            while (left_s := start_s + _WATCH_S - time.monotonic()) > 0:
                if is_welcomed:
                    session.welcome()
                    _drain(session)
                else:
                    _end_unavailable(session)
                with contextlib.suppress(StillnessError):
                    session.accept(left_s)
                    num_streams += 1
                if num_streams > _MOST_STREAMS:
                    raise ViolationError(
                        f"expected at most {_MOST_STREAMS} streams in {_WATCH_S:g} s, got "
                        f"{num_streams} in {time.monotonic() - start_s:.2f} s"
                    )
            _end_unavailable(session)
            session.open()
            session.play(1)

    return check


RULES: list[Rule[ClientPeer]] = [
    make_recorded_rule("reset-stream", _RESET, break_stream),
    make_recorded_rule("same-hello", _HELLO, break_stream),
    make_recorded_rule("unanswered", _UNANSWERED, break_stream),
    make_recorded_rule("repetition", _REPETITION, break_stream),
    Rule("unavailable", _UNAVAILABLE, _check_break(_end_unavailable)),
    Rule("unknown-status", _UNKNOWN, _check_break(_end_unknown)),
    Rule("foreign-status", _FOREIGN, _check_break(_end_foreign)),
    Rule("restart", _RESTART, _check_break(_restart)),
    Rule("goaway", _GOAWAY, _check_break(_go_away)),
    Rule("drain-stopping", _STOPPING, _check_break(_drain)),
    Rule("capacity", _CAPACITY, _check_capacity),
    Rule("backoff", _BACKOFF, _check_backoff(is_welcomed=False)),
    Rule("backoff-welcomed", _WELCOMED, _check_backoff(is_welcomed=True)),
]
