"""The steps of `make gpu`, in the order in which they run: what is short and most wanted first."""

from __future__ import annotations

from benchmarks.gpu.step import Step

TOTAL_S = 530.0
"""Seconds of all steps together: the command ends within nine minutes."""

_PACKAGE = "benchmarks.gpu"


def _learner(network: str, limit_s: float, *variants: str) -> tuple[Step, ...]:
    """Returns a step for each variant: a precision, and how the network is compiled, if it is."""
    return tuple(
        Step(
            name=f"learner_{network}_{variant}",
            function=f"{_PACKAGE}.learner_steps:measure_learner",
            words=(network, variant),
            limit_s=limit_s,
        )
        for variant in variants
    )


PLAN: tuple[Step, ...] = (
    Step(name="device", function=f"{_PACKAGE}.device_step:describe_device", limit_s=40.0),
    Step(name="tests", function=f"{_PACKAGE}.tests_step:run_tests", limit_s=60.0),
    Step(name="vtrace", function=f"{_PACKAGE}.learner_steps:measure_scan", limit_s=30.0),
    Step(name="copies", function=f"{_PACKAGE}.loading_steps:measure_copies", limit_s=40.0),
    Step(name="frames", function=f"{_PACKAGE}.loading_steps:measure_frames", limit_s=30.0),
    Step(name="ranks", function=f"{_PACKAGE}.ranks_step:compare_ranks", limit_s=45.0),
    *_learner("nature_cnn", 30.0, "float32", "bfloat16"),
    *_learner("impala_resnet", 35.0, "float32", "bfloat16"),
    Step(
        name="system_resnet",
        function=f"{_PACKAGE}.system_steps:measure_system",
        words=("impala_resnet",),
        limit_s=75.0,
    ),
    Step(
        name="system_nature",
        function=f"{_PACKAGE}.system_steps:measure_system",
        words=("nature_cnn",),
        limit_s=60.0,
    ),
    # What the product does not do comes last of what has a limit.
    *_learner("nature_cnn", 45.0, "bfloat16_compiled", "bfloat16_graphs"),
    *_learner("impala_resnet", 60.0, "bfloat16_compiled", "bfloat16_graphs"),
    Step(
        name="pong",
        function=f"{_PACKAGE}.system_steps:train_pong",
        limit_s=90.0,
        takes_rest=True,
    ),
)
