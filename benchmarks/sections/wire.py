"""The wire beside plain TCP sockets: `python -m benchmarks.sections.wire --quick`.

Unrolls of real Atari frames and incompressible ones into rollout storage, weights to many
clients, and a learner beside both. A section of the suite, or alone.
"""

from __future__ import annotations

from benchmarks.rigs.unroll_source import UnrollSource, make_pixels, make_vectors, record_atari
from benchmarks.sections.wire_ingest import measure_ingest
from benchmarks.sections.wire_learner import measure_beside_fetching, measure_beside_ingest
from benchmarks.sections.wire_weights import measure_weights
from benchmarks.suite.alone import run_alone
from benchmarks.suite.section import BenchSettings, Json

TITLE = "The wire"
_ENV = "ALE/Pong-v5"


def measure(settings: BenchSettings) -> Json:
    """Measures all of it."""
    quick, num_windows = settings.is_quick, settings.num_windows
    window_s = 0.5 if quick else 3 * settings.part_window_s
    pong = record_atari(_ENV, 80, 1, 4 if quick else 16)
    weights_bytes = 4_000_000 if quick else 40_000_000
    return {
        "env": _ENV,
        "atari": [
            measure_ingest(pong, num_streams, num_windows, window_s)
            for num_streams in ((4,) if quick else (16, 64))
        ],
        "atari_bytes": _bytes_per_step(pong),
        "random": [
            measure_ingest(make_pixels(80, 1, 4), num_streams, num_windows, window_s)
            for num_streams in ((2,) if quick else (4, 16))
        ],
        "weights": [
            measure_weights(num_clients, weights_bytes, num_windows)
            for num_clients in ((4,) if quick else (8, 32))
        ],
        "learner": {
            "beside Pong unrolls": measure_beside_ingest(
                record_atari(_ENV, 20, 1, 4 if quick else 16),
                batch_size=4,
                num_streams=2 if quick else 16,
                num_windows=num_windows,
                window_s=window_s,
            ),
            "beside vectors": measure_beside_ingest(
                make_vectors(20, 8, 8),
                batch_size=32,
                num_streams=2 if quick else 16,
                num_windows=num_windows,
                window_s=window_s,
            ),
            "beside clients that fetch": measure_beside_fetching(
                num_clients=8 if quick else 500,
                width=256 if quick else 2240,
                num_windows=1 if quick else 2,
                window_s=window_s,
            ),
        },
    }


def _bytes_per_step(source: UnrollSource) -> Json:
    steps = source.spec.unroll_length * source.num_slots
    return {
        "uncompressed": source.message_bytes(compress=False) / steps,
        "compressed": source.message_bytes(compress=True) / steps,
    }


def render(result: Json) -> str:
    """Returns three tables."""
    lines = [
        "x TCP: against raw sockets in the same windows, which send an unroll with its frames "
        "stacked, uncompressed. ms and s/GB are CPU time of all processes of a side.\n",
        "| unrolls of 80 steps | streams | unrolls/s | x TCP | spread | server ms | client ms | "
        "server s/GB | client s/GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for title, rows in ((result["env"], result["atari"]), ("random pixels", result["random"])):
        lines += [
            f"| {title} | {row['streams']} | {row['unrolls_per_s']['median']:,.0f} | "
            f"{row['ratio_to_raw']['median']:.2f} | {row['ratio_to_raw']['spread']:.0%} | "
            f"{row['server_ms_per_unroll']['median']:.2f} | "
            f"{row['client_ms_per_unroll']['median']:.2f} | {row['server_s_per_gb']:.2f} | "
            f"{row['client_s_per_gb']:.2f} |"
            for row in rows
        ]
    lines += [
        "\n| weights to clients at once | MB | GB/s | x TCP | spread | server s/GB | client s/GB | "
        "server memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['clients']} | {row['weights_bytes'] / 1e6:.0f} | {row['gb_per_s']['median']:.2f} "
        f"| {row['ratio_to_raw']['median']:.2f} | {row['ratio_to_raw']['spread']:.0%} | "
        f"{row['server_s_per_gb']:.2f} | {row['client_s_per_gb']:.2f} | "
        f"+{row['server_growth_mib']:.0f} MiB |"
        for row in result["weights"]
    ]
    lines += [
        "\nA new version each time. A learner with a core for itself, against its idle windows:\n",
        "| learner | updates/s x idle | p99 update x idle | traffic |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['ratio_wall']['median']:.3f} | {row['p99_ratio_wall']:.2f} "
        f"| {_traffic(row)} |"
        for name, row in result["learner"].items()
    ]
    return "\n".join(lines) + "\n"


def _traffic(row: Json) -> str:
    if "clients" in row:
        return f"{row['clients']} clients, {row['fetch_s']['median']:.1f} s"
    return f"{row['streams']} streams, {row['unrolls_per_s']:,.0f} unrolls/s"


def figures(result: Json) -> dict[str, float]:
    """Returns the worst of each kind: rates and ratios at least, costs at most."""
    atari, random, weights = result["atari"], result["random"], result["weights"]
    found = {
        "atari_unrolls_per_s": min(row["unrolls_per_s"]["median"] for row in atari),
        "atari_ratio_to_raw": min(row["ratio_to_raw"]["median"] for row in atari),
        "atari_server_ms": max(row["server_ms_per_unroll"]["median"] for row in atari),
        "atari_client_ms": max(row["client_ms_per_unroll"]["median"] for row in atari),
        "atari_step_bytes": result["atari_bytes"]["uncompressed"],
        "atari_step_bytes_compressed": result["atari_bytes"]["compressed"],
        "random_ratio_to_raw": min(row["ratio_to_raw"]["median"] for row in random),
        "random_server_s_per_gb": max(row["server_s_per_gb"] for row in random),
        "random_client_s_per_gb": max(row["client_s_per_gb"] for row in random),
        "weights_ratio_to_raw": min(row["ratio_to_raw"]["median"] for row in weights),
        "weights_server_s_per_gb": max(row["server_s_per_gb"] for row in weights),
        "weights_server_growth_mib": max(row["server_growth_mib"] for row in weights),
    }
    for name, row in result["learner"].items():
        key = "learner_" + name.replace(" ", "_")
        found[f"{key}_ratio_wall"] = row["ratio_wall"]["median"]
        found[f"{key}_ratio_cpu"] = row["ratio_cpu"]["median"]
        found[f"{key}_p99_ratio"] = row["p99_ratio_wall"]
    return found


def main() -> None:
    """Runs it alone."""
    run_alone("wire", measure, render, figures)


if __name__ == "__main__":
    main()
