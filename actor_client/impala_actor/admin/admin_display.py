"""What `impala-admin` shows: one screen of status, the live dashboard, tables.

Made from the JSON form of the admin service's answers; knows no gRPC. Text from actors and files
goes through rich's Text, never through its markup.
"""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from impala_common.process.logs import printable
from impala_common.run import metrics as names
from impala_common.run.return_text import show_return
from impala_common.run.sparkline import Sparkline

Json = dict[str, Any]

_STATE_STYLES = {"RUNNING": "green", "PAUSED": "yellow", "STARTING": "yellow", "DRAINING": "yellow"}
_SPARKED = (names.RETURN_MEAN, names.STEPS_PER_S, names.POLICY_LAG_MEAN, names.QUEUE_FILL)
_SPARKLINE_WIDTH = 24


class Dashboard:
    """The status with sparklines of four numbers; `update`, then `render`."""

    def __init__(self) -> None:
        """Starts without a status."""
        self._sparklines = {name: Sparkline() for name in _SPARKED}
        self._status: Json = {}

    def update(self, status: Json) -> None:
        """Takes the newest status."""
        self._status = status
        for name, line in self._sparklines.items():
            value = status["metrics"].get(name)
            if value is not None:
                line.append(value)

    def render(self) -> RenderableType:
        """Returns the renderable of the present status."""
        sparklines = {name: line.draw(_SPARKLINE_WIDTH) for name, line in self._sparklines.items()}
        return render_status(self._status, sparklines)


def render_status(status: Json, sparklines: dict[str, str] | None = None) -> RenderableType:
    """Returns one screen with the learner's status."""
    numbers = _Numbers(status["metrics"])
    sparklines = sparklines or {}
    steps, total = status["learner"]["trained_steps"], status["total_steps"]
    state = status["state"]

    def course(name: str, text: str) -> Text:
        return Text.assemble(text, "  ", (sparklines.get(name, ""), "cyan"))

    rows: list[tuple[str, str | Text]] = [
        ("run", printable(status["run_path"])),
        ("learner", f"{status['learner']['learner_run_id']} at {status['address']}"),
        ("environment", printable(status["environment_id"] or "as the first actor says")),
        ("network", f"{status['model'] or '-'} on {status['device'] or '-'}"),
        ("steps", f"{steps:,} of {total:,} ({100 * min(1.0, steps / max(total, 1)):.1f} %)"),
        ("steps/s", course(names.STEPS_PER_S, numbers.show(names.STEPS_PER_S, ",.0f"))),
        ("return", course(names.RETURN_MEAN, numbers.show_return(names.RETURN_MEAN))),
        *_describe_evaluation(numbers),
        (
            "weights",
            f"version {status['learner']['policy_version']:,}, "
            f"learning rate {numbers.show(names.LEARNING_RATE, '.3g')}",
        ),
        (
            "policy lag",
            course(
                names.POLICY_LAG_MEAN,
                f"{numbers.show(names.POLICY_LAG_MEAN)} mean, "
                f"{numbers.show(names.POLICY_LAG_MAX, '.0f')} max",
            ),
        ),
        (
            "queue",
            course(
                names.QUEUE_FILL,
                f"{numbers.show(names.QUEUE_FILL, '.0%')} of {_show_bytes(status['storage_bytes'])}"
                " of rollout storage",
            ),
        ),
        ("unrolls", _describe_unrolls(numbers)),
        ("actors", _describe_actors(status)),
        ("checkpoint", status["last_checkpoint"] or "none yet"),
        (
            "server",
            f"{status['software_version']}, up {_show_time(status['uptime_s'])}, "
            f"last heard of {status['age_s']:.1f} s ago",
        ),
        ("bottleneck", status["bottleneck"] or "not known yet"),
    ]
    for finding in reversed(status.get("findings") or ()):
        rows.insert(0, ("learning", Text(finding, style="yellow")))
    if status.get("trouble"):
        rows.insert(0, ("trouble", Text(status["trouble"], style="bold red")))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value if isinstance(value, Text) else Text(value))
    title = Text.assemble(
        ("impala-rl", "bold"), "  ", (state, f"bold {_STATE_STYLES.get(state, 'red')}")
    )
    return Panel(Group(grid), title=title, title_align="left", border_style="dim", padding=(0, 1))


def describe_status(status: Json) -> str:
    """Returns the status as one line."""
    numbers = _Numbers(status["metrics"])
    return (
        f"{status['state']} steps {status['learner']['trained_steps']:,} "
        f"{numbers.show(names.STEPS_PER_S, ',.0f')}/s "
        f"return {numbers.show_return(names.RETURN_MEAN)} "
        f"version {status['learner']['policy_version']:,} "
        f"lag {numbers.show(names.POLICY_LAG_MEAN)} queue {numbers.show(names.QUEUE_FILL, '.0%')} "
        f"actors {status['connected_actor_count']} bottleneck {status['bottleneck'] or '-'}"
        + "".join(f"; {name.partition(':')[0]}" for name in status.get("findings") or ())
    )


def render_actors(answer: Json) -> RenderableType:
    """Returns the table of actors."""
    table = _make_table(
        "actor", "host", "slots>", "steps/s>", "unrolls>", "lag>", "last seen>", "duplicates>",
        "rejects>", "session>",
    )  # fmt: skip
    for actor in answer["actors"]:
        is_connected = actor["is_connected"]
        table.add_row(
            Text(printable(actor["actor_id"]), "" if is_connected else "dim"),
            Text(printable(actor["host"], 64)),
            str(actor["environment_slot_count"]),
            f"{actor['steps_per_second']:,.0f}" if is_connected else "gone",
            f"{actor['accepted_unroll_count']:,}",
            str(actor["policy_lag"]),
            f"{actor['last_seen_s']:.1f} s",
            f"{actor['duplicate_unroll_count']:,}",
            f"{actor['rejected_unroll_count']:,}",
            str(actor["session_epoch"]),
        )
    notes = [_describe_totals(answer)] if answer["totals"]["actor_count"] else []
    if banned := ", ".join(answer["banned_actor_ids"]):
        notes.append(f"banned: {banned}")
    return Group(table, *map(Text, notes)) if notes else table


def _describe_totals(answer: Json) -> str:
    """Returns the line below the table: what all actors do, shown or not."""
    totals = answer["totals"]
    num_hidden = totals["actor_count"] - len(answer["actors"])
    hidden = f" ({num_hidden:,} not shown: --limit 0)" if num_hidden > 0 else ""
    return (
        f"{totals['actor_count']:,} actors{hidden}, {totals['connected_actor_count']:,} connected "
        f"with {totals['environment_slot_count']:,} slots, {totals['steps_per_second']:,.0f} "
        f"steps/s, {totals['accepted_unroll_count']:,} unrolls, "
        f"{totals['duplicate_unroll_count']:,} duplicates, {totals['rejected_unroll_count']:,} "
        f"rejects, lag up to {totals['max_policy_lag']:,}"
    )


def render_clients(answer: Json) -> RenderableType:
    """Returns the table of a policy server's clients."""
    table = _make_table(
        "client", "life", "slots>", "live>", "steps/s>", "observations>", "resent>", "version>",
        "last heard>", "plays",
    )  # fmt: skip
    for one in answer["clients"]:
        is_connected = one["is_connected"]
        table.add_row(
            Text(printable(one["client_id"]), "" if is_connected else "dim"),
            Text(one["client_run_id"]),
            str(one["slot_count"]),
            str(one["live_slot_count"]),
            f"{one['steps_per_second']:,.0f}" if is_connected else "away",
            f"{one['observation_count']:,}",
            f"{one['repetition_count']:,}",
            str(one["policy_version"]),
            f"{one['last_heard_s']:.1f} s",
            "evaluation" if one["is_evaluation"] else "training",
        )
    count = f"{answer['client_count']} clients"
    return Group(table, Text(f"{count}, draining" if answer["is_draining"] else count))


def render_checkpoints(answer: Json) -> RenderableType:
    """Returns the table of checkpoints."""
    table = _make_table("checkpoint", "steps>", "version>", "size>", "saved", "kept")
    for one in answer["checkpoints"]:
        table.add_row(
            Text(one["name"]),
            f"{one['trained_steps']:,}",
            f"{one['policy_version']:,}",
            _show_bytes(one["total_bytes"]),
            one["save_time"][:19].replace("T", " "),
            "for good" if one["is_kept"] else "",
        )
    return table


def render_parameters(answer: Json) -> RenderableType:
    """Returns the table of parameters; a changed one also shows its configured value."""
    table = _make_table("parameter", "value>", "configured>", "bounds", "meaning")
    for one in answer["parameters"]:
        is_set = one["value"] != one["configured_value"]
        table.add_row(
            one["name"],
            Text(one["value"], "bold yellow" if is_set else ""),
            one["configured_value"] if is_set else "",
            one["bounds"],
            one["meaning"],
        )
    return table


class _Numbers:
    """Metrics of a status by name, some of which may be missing."""

    def __init__(self, values: dict[str, float]) -> None:
        self._values = values

    def has(self, name: str) -> bool:
        """Returns whether a metric is known."""
        return name in self._values

    def show(self, name: str, form: str = ",.1f") -> str:
        """Returns a metric as text, "-" where it is missing."""
        value = self._values.get(name)
        return "-" if value is None or not math.isfinite(value) else format(value, form)

    def show_return(self, name: str, beside: str = "") -> str:
        """Returns the return called `name`, with as many digits as that called `beside`."""
        value = self._values.get(name)
        is_known = value is not None and math.isfinite(value)
        return show_return(value if is_known else None, beside=self._values.get(beside))


def _make_table(*columns: str) -> Table:
    """Returns a table with these columns; ">" at the end: numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        is_number = column.endswith(">")
        table.add_column(column.removesuffix(">"), justify="right" if is_number else "left")
    return table


def _describe_evaluation(numbers: _Numbers) -> list[tuple[str, str | Text]]:
    """Returns the row of the newest and the best evaluation, or none."""
    if not numbers.has(names.EVALUATION_BEST):
        return []
    best = (
        f"best {numbers.show_return(names.EVALUATION_BEST)} "
        f"at step {numbers.show(names.EVALUATION_BEST_STEPS, ',.0f')}"
    )
    if not numbers.has(names.EVALUATION_RETURN_MEAN):
        return [("evaluation", best)]
    newest = (
        f"{numbers.show_return(names.EVALUATION_RETURN_MEAN)} "
        f"± {numbers.show_return(names.EVALUATION_ERROR, names.EVALUATION_RETURN_MEAN)}, "
        f"greedy {numbers.show_return(names.GREEDY_RETURN_MEAN)}, "
    )
    return [("evaluation", newest + best)]


def _describe_unrolls(numbers: _Numbers) -> str:
    parts = [f"{numbers.show(names.UNROLLS_ACCEPTED, ',.0f')} accepted"]
    parts += [
        f"{numbers.show(name, ',.0f')} {name.rpartition('/')[2]}"
        for name in (*names.UNROLLS_REJECTED, names.UNROLLS_DROPPED)
    ]
    return ", ".join(parts)


def _describe_actors(status: Json) -> str:
    banned = status["banned_actor_count"]
    return f"{status['connected_actor_count']} connected" + (f", {banned} banned" if banned else "")


def _show_bytes(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} GiB"


def _show_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
