"""Answers ListActors: the actors that filters let through, page by page, and what they do together.

Called by the admin servicer on the front end's event loop. A page begins after the actor that
the token names by state and index; actors that come, go or change meanwhile shift no page.
"""

from __future__ import annotations

from collections.abc import Sequence

from impala_common.errors import InvalidRequestError
from impala_rl.v1 import admin_pb2
from impala_server.front_end.admin.admin_views import pack_session
from impala_server.front_end.data_plane.sessions import ActorSession, SessionTable


def list_actors(
    sessions: SessionTable, request: admin_pb2.ListActorsRequest
) -> admin_pb2.ListActorsResponse:
    """Returns the page that `request` asks for.

    Raises:
      InvalidRequestError: its token is none of ours.
    """
    wanted = [session for session in sessions.all if _is_wanted(session, request)]
    response = admin_pb2.ListActorsResponse(
        banned_actor_ids=sessions.banned, totals=_add_up(wanted)
    )
    after = _unpack_token(request.page_token)
    rest = [session for session in wanted if _place(session) > after]
    size = request.page_size or len(rest)
    response.actors.extend(pack_session(session) for session in rest[:size])
    if len(rest) > size:
        is_gone, index = _place(rest[size - 1])
        response.next_page_token = f"{int(is_gone)}-{index}"
    return response


def _is_wanted(session: ActorSession, request: admin_pb2.ListActorsRequest) -> bool:
    if request.is_connected and session.num_streams == 0:
        return False
    if request.is_rejected and session.activity.rejected == 0:
        return False
    return request.text in session.actor_id or request.text in session.host


def _place(session: ActorSession) -> tuple[bool, int]:
    """Returns where a session is in the order of `SessionTable.all`."""
    return session.num_streams == 0, session.index


def _unpack_token(token: str) -> tuple[bool, int]:
    if not token:
        return False, -1
    is_gone, _, index = token.partition("-")
    if is_gone not in ("0", "1") or not (index.isascii() and index.isdecimal()):
        raise InvalidRequestError("page_token: expected the next_page_token of an answer")
    return is_gone == "1", int(index)


def _add_up(sessions: Sequence[ActorSession]) -> admin_pb2.ActorTotals:
    connected = [session for session in sessions if session.num_streams > 0]
    activities = [session.activity for session in sessions]
    return admin_pb2.ActorTotals(
        actor_count=len(sessions),
        connected_actor_count=len(connected),
        environment_slot_count=sum(one.num_environment_slots for one in connected),
        steps_per_second=sum(one.activity.steps_per_s for one in connected),
        accepted_unroll_count=sum(one.accepted for one in activities),
        duplicate_unroll_count=sum(one.duplicates for one in activities),
        rejected_unroll_count=sum(one.rejected for one in activities),
        max_policy_lag=max((one.activity.policy_lag for one in connected), default=0),
    )
