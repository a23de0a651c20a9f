"""Admin client with answers as JSON, and a reader of the audit log."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from running_server import RunningServer

from impala_actor.admin.admin_client import AdminClient, find_address, to_json
from impala_common.run import metrics


class Admin(AdminClient):
    """The product's client, with answers as JSON."""

    def ask(self, method: str, **fields: Any) -> dict[str, Any]:
        return to_json(self.call(method, **fields))

    def status(self) -> dict[str, Any]:
        return self.ask("GetStatus")["status"]

    def steps(self) -> int:
        return self.status()["learner"]["trained_steps"]


@contextlib.contextmanager
def admin_of(server: RunningServer, **settings: Any) -> Iterator[Admin]:
    client = Admin(find_address(server.run.path, ""), timeout_s=20.0, **settings)
    with contextlib.closing(client):
        yield client


def wait_for_updates(server: RunningServer, number: int = 5) -> None:
    """Waits for more updates than the learner's first status of this life tells."""
    first = server.wait_until(lambda status: metrics.UPDATES in status)[metrics.UPDATES]
    server.wait_until(lambda status: status[metrics.UPDATES] >= first + number)


def audit(server: RunningServer) -> list[dict[str, Any]]:
    text = server.run.audit_path.read_text()
    assert text.isprintable() or text.replace("\n", "").isprintable()
    return [json.loads(line) for line in text.splitlines()]
