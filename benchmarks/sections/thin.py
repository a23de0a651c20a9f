"""Thin actors: against ordinary ones on CartPole and Pong, against a bare echo, and memory."""

from __future__ import annotations

import asyncio
import statistics

from benchmarks.rigs.play_clients import Load, PlayClient, play
from benchmarks.rigs.play_servers import PlayServer
from benchmarks.sections.throughput import Window, measure_windows
from benchmarks.suite.cases import ONE_PASS
from benchmarks.suite.section import BenchSettings, Json, summarise

TITLE = "Thin actors"
TIMEOUT_S = 1800.0
_NUM_CLIENTS = 64
_NUM_IDLE = 1000
_PONG = ("--preset", "atari_paper", "--envs-per-actor", "32")
_CARTPOLE = (*ONE_PASS, "--preset", "cartpole_wide", "--envs-per-actor", "64")
_ONE = {"ordinary": ("--num-actors", "1"), "thin": ("--num-actors", "1", "--thin")}
_FOUR = "thin, four of them"
_GAMES = {
    "cartpole": ("CartPole-v1", _CARTPOLE, {**_ONE, _FOUR: ("--num-actors", "4", "--thin")}),
    "pong": ("ALE/Pong-v5", _PONG, _ONE),
}


def measure(settings: BenchSettings) -> Json:
    """Measures all, what is compared in turn."""
    systems: dict[str, dict[str, list[Window]]] = {}
    for game, (env, options, variants) in _GAMES.items():
        systems[game] = {name: [] for name in variants}
        for _ in range(1 if settings.is_quick else 3):
            for name, more in variants.items():
                systems[game][name] += measure_windows(
                    env,
                    *options,
                    *more,
                    warm_up_s=min(settings.warm_up_s, 5.0),
                    window_s=settings.window_s,
                    num_windows=max(1, settings.num_windows // 3),
                )
    return {
        **{
            game: {name: _describe(windows) for name, windows in found.items()}
            for game, found in systems.items()
        },
        "single_slots": asyncio.run(_measure_single(settings)),
        "idle": asyncio.run(_measure_idle(20 if settings.is_quick else _NUM_IDLE)),
    }


def render(result: Json) -> str:
    """Returns tables."""
    lines = [
        "Actors of 64 slots in one message on CartPole, and of 32 on Pong, where thin ones send "
        "single frames; one pass:",
        "",
        "| environment | actors | steps/s | CPU us per step, by process |",
        "|---|---|---|---|",
    ]
    for game, title in (("cartpole", "CartPole-v1"), ("pong", "ALE/Pong-v5")):
        for name, one in result.get(game, {}).items():
            cpu_us = {k: us for k, us in one["cpu_us_by_process"].items() if k != "command"}
            cpu = ", ".join(f"{who} {us:.1f}" for who, us in cpu_us.items())
            lines.append(f"| {title} | {name} | {one['steps_per_s']['median']:,.0f} | {cpu} |")
    lines += [
        "",
        f"{_NUM_CLIENTS} clients of one slot, 4 floats, a connection each, and a bare grpc.aio "
        "echo of the same messages; p99 latency at half of each server's own rate:",
        "",
        "| server | steps/s | CPU us per step | p99 |",
        "|---|---|---|---|",
    ]
    for name, one in result["single_slots"].items():
        lines.append(
            f"| {name} | {one['steps_per_s']['median']:,.0f} | {one['cpu_us']:.0f} | "
            f"{one['p99_ms']:.1f} ms |"
        )
    return "\n".join(lines) + "\n"


def figures(result: Json) -> dict[str, float]:
    """Returns what targets.toml judges."""
    cartpole, single = result["cartpole"], result["single_slots"]
    thin = cartpole["thin"]["steps_per_s"]["median"]
    pong = {name: one["steps_per_s"]["median"] for name, one in result.get("pong", {}).items()}
    four = cartpole.get(_FOUR)  # missing in results of before
    return {
        **({"cartpole_four_steps_per_s": four["steps_per_s"]["median"]} if four else {}),
        **({"pong_share_of_ordinary": pong["thin"] / pong["ordinary"]} if pong else {}),
        "cartpole_steps_per_s": thin,
        "cartpole_share_of_ordinary": thin / cartpole["ordinary"]["steps_per_s"]["median"],
        "single_slots_share_of_echo": single["policy"]["steps_per_s"]["median"]
        / single["echo"]["steps_per_s"]["median"],
        "single_slots_p99_over_echo": single["policy"]["p99_ms"] / single["echo"]["p99_ms"],
        "idle_client_kib": result["idle"]["kib_per_client"],
    }


def _describe(windows: list[Window]) -> Json:
    names = windows[0].cpu_us_by_process
    return {
        "steps_per_s": summarise([window.steps_per_s for window in windows]),
        "cpu_us_by_process": {
            name: statistics.median(window.cpu_us_by_process.get(name, 0.0) for window in windows)
            for name in names
        },
        "other_cores": statistics.median(window.other_cores for window in windows),
    }


async def _measure_single(settings: BenchSettings) -> Json:
    """Measures both servers in turn, then the latency of each at half of its own rate."""
    seconds = 0.3 if settings.is_quick else 3.0
    num_windows = 1 if settings.is_quick else settings.num_windows
    with PlayServer("echo") as echo, PlayServer("policy") as policy:
        servers = {"echo": echo, "policy": policy}
        clients = {
            name: await open_clients(one.address, _NUM_CLIENTS) for name, one in servers.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in servers}
        cpu_us: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(num_windows):
            for name, server in servers.items():
                before_s = sum(server.process.cpu_times()[:2])
                load = await play(clients[name], seconds)
                cpu_s = sum(server.process.cpu_times()[:2]) - before_s
                rates[name].append(load.steps_per_s)
                cpu_us[name].append(1e6 * cpu_s / len(load.latencies_s))
        paced: dict[str, list[Load]] = {name: [] for name in servers}
        for _ in range(num_windows):
            for name in servers:
                half = statistics.median(rates[name]) / 2
                paced[name].append(await play(clients[name], seconds, half))
        for group in clients.values():
            await asyncio.gather(*(client.close() for client in group))
    return {
        name: {
            "steps_per_s": summarise(rates[name]),
            "cpu_us": statistics.median(cpu_us[name]),
            "p50_ms": statistics.median(load.quantile_ms(0.5) for load in paced[name]),
            "p99_ms": statistics.median(load.quantile_ms(0.99) for load in paced[name]),
        }
        for name in servers
    }


async def _measure_idle(num_clients: int) -> Json:
    """Measures what clients that have played one step each take at the policy server."""
    with PlayServer("policy") as server:
        # What the first ones load is not theirs.
        first = await open_clients(server.address, 10, "first")
        before = server.process.memory_info().rss
        clients = await open_clients(server.address, num_clients)
        grown = server.process.memory_info().rss - before
        for client in (*first, *clients):
            await client.close()
    return {"num_clients": num_clients, "kib_per_client": grown / 1024 / num_clients}


async def open_clients(address: str, number: int, name: str = "client") -> list[PlayClient]:
    """Returns clients of one slot that have connected."""
    clients = [PlayClient(address, f"{name}-{index}") for index in range(number)]
    for start in range(0, number, 50):
        await asyncio.gather(*(client.open() for client in clients[start : start + 50]))
    return clients
