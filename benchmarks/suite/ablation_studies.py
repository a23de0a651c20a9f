"""The studies of benchmarks.studies.ablations: an environment, and variants of its preset."""

from __future__ import annotations

from typing import NamedTuple


class AblationStudy(NamedTuple):
    """Variants of the settings of one environment.

    Attributes:
      title: its heading on the page.
      env: environment id.
      total_steps: agent steps per run.
      bar: mean return to whose first reaching time is measured.
      variants: options of impala-train by name; the preset's own settings have none.
    """

    title: str
    env: str
    total_steps: int
    bar: float
    variants: dict[str, str]


_PASSES = {
    f"{passes} passes, {'surrogate .2' if clip else 'no surrogate'}": (
        f"--passes {passes} --surrogate-clip {clip}"
    )
    for clip in (0.2, 0)
    for passes in (1, 2, 4, 8)
}
_LAG = {
    f"weights published every {updates} updates": f"--publish-interval-updates {updates}"
    for updates in (1, 2, 5, 10, 20, 40)
}
_REFRESH = {
    "weights taken over before an unroll": "--weights-refresh unroll",
    "weights taken over before a step": "--weights-refresh step",
}
_VTRACE = {
    "V-trace anew in each pass": "--vtrace-per-pass",
    "V-trace of the first pass in all": "--no-vtrace-per-pass",
}
_REPLAY = {f"replay ratio {ratio}": f"--replay-ratio {ratio}" for ratio in (0, 1, 2)}
_NORMALISATION = {
    "generic preset": "",
    "rewards as they are": "--reward-normalisation none",
    "observations as they are": "--no-normalise-observations",
    "advantages as they are": "--advantage-normalisation none",
}
_TIMING = {
    "weights taken over before an unroll": "--weights-refresh unroll",
    "the same, decaying rate": "--weights-refresh unroll --learning-rate-schedule linear",
    "weights taken over before a step": "--weights-refresh step",
}
_GUARD = {
    "preset": "",
    "kl_stop 0.02": "--kl-stop 0.02",
    "no surrogate": "--surrogate-clip 0",
    "no surrogate, kl_stop 0.02": "--surrogate-clip 0 --kl-stop 0.02",
    "gradient clip 40": "--max-grad-norm 40",
    "decaying rate": "--learning-rate-schedule linear",
}

STUDIES: dict[str, AblationStudy] = {
    "passes_breakout": AblationStudy(
        "Passes and surrogate, MinAtar Breakout", "MinAtar/Breakout-v0", 200_000, 8.0, _PASSES
    ),
    "passes_asterix": AblationStudy(
        "Passes and surrogate, MinAtar Asterix", "MinAtar/Asterix-v0", 200_000, 4.0, _PASSES
    ),
    "passes_pendulum": AblationStudy(
        "Passes and surrogate, Pendulum", "Pendulum-v1", 150_000, -200.0, _PASSES
    ),
    "vtrace_breakout": AblationStudy(
        "V-trace anew in each pass, MinAtar Breakout", "MinAtar/Breakout-v0", 600_000, 15.0, _VTRACE
    ),
    "vtrace_pendulum": AblationStudy(
        "V-trace anew in each pass, Pendulum", "Pendulum-v1", 150_000, -200.0, _VTRACE
    ),
    "replay_breakout": AblationStudy(
        "Replay, MinAtar Breakout, at equal steps", "MinAtar/Breakout-v0", 200_000, 8.0, _REPLAY
    ),
    "lag_cartpole": AblationStudy("Lag, CartPole", "CartPole-v1", 100_000, 475.0, _LAG),
    "lag_breakout": AblationStudy(
        "Lag, MinAtar Breakout", "MinAtar/Breakout-v0", 200_000, 8.0, _LAG
    ),
    "refresh_breakout": AblationStudy(
        "Weights within an unroll, MinAtar Breakout",
        "MinAtar/Breakout-v0",
        200_000,
        8.0,
        _REFRESH,
    ),
    "refresh_pendulum": AblationStudy(
        "Weights within an unroll, Pendulum", "Pendulum-v1", 150_000, -200.0, _REFRESH
    ),
    "guard_cartpole": AblationStudy(
        "Guards, CartPole at a constant rate", "CartPole-v1", 300_000, 475.0, _GUARD
    ),
    "guard_doorkey": AblationStudy(
        "Guards, MiniGrid DoorKey-5x5",
        "MiniGrid-DoorKey-5x5-v0",
        250_000,
        0.9,
        {
            "generic preset": "",
            "no kl_stop": "--kl-stop 0",
            "no entropy floor": "--entropy-floor 0",
        },
    ),
    "normalisation_cliffwalking": AblationStudy(
        "Normalisation, CliffWalking", "CliffWalking-v1", 200_000, -15.0, _NORMALISATION
    ),
    "normalisation_doorkey": AblationStudy(
        "Normalisation, MiniGrid DoorKey-5x5",
        "MiniGrid-DoorKey-5x5-v0",
        200_000,
        0.9,
        {name: _NORMALISATION[name] for name in ("generic preset", "observations as they are")},
    ),
    "timing_acrobot": AblationStudy(
        "Decaying rate and newer weights, Acrobot", "Acrobot-v1", 200_000, -90.0, _TIMING
    ),
    "timing_cliffwalking": AblationStudy(
        "Decaying rate and newer weights, CliffWalking", "CliffWalking-v1", 400_000, -15.0, _TIMING
    ),
    "timing_doorkey": AblationStudy(
        "Decaying rate and newer weights, MiniGrid DoorKey-5x5",
        "MiniGrid-DoorKey-5x5-v0",
        250_000,
        0.9,
        _TIMING,
    ),
    "timing_pendulum": AblationStudy(
        "Decaying rate and newer weights, Pendulum", "Pendulum-v1", 300_000, -170.0, _TIMING
    ),
    "normalisation_mountaincar": AblationStudy(
        "Normalisation, MountainCarContinuous",
        "MountainCarContinuous-v0",
        200_000,
        90.0,
        _NORMALISATION,
    ),
}
"""Studies by name."""
