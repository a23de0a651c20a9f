"""impala-eval: evaluates, films, exports and plots runs with frozen weights.

The console script of that name. Importing this file is cheap: torch and matplotlib are imported
after the command line is checked. Prints (noqa T201), as
commands do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from impala_actor.acting.signal_guard import guard_signals
from impala_actor.acting.stop_signals import end_process
from impala_actor.environments.watchdog import end_hung_process
from impala_actor.evaluation.evaluation_display import RunReport, show_reports
from impala_actor.evaluation.output_places import (
    EXPORT_RULE,
    require_folder,
    require_picture,
    require_runs,
)
from impala_common.config.checks import require, require_at_least, require_between, require_held
from impala_common.config.environment_options import validate_env_kwargs, validate_env_wrapper
from impala_common.errors import ImpalaError
from impala_common.process import exit_codes
from impala_common.process.installation import show_version
from impala_common.process.logs import configure_logging
from impala_common.process.own_modules import search_working_directory
from impala_common.process.result_stream import claim_stdout
from impala_common.process.standard_streams import prepare_standard_streams

PROGRAM = "impala-eval"
DESCRIPTION = """Play episodes with the newest checkpoint of each run, weights frozen.

Every environment slot plays the same number of episodes, so that short episodes are not favoured;
the number asked for is rounded up accordingly."""


def _option(metavar: str, hint: str) -> object:
    """Returns a tyro annotation with the help of an option."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Command line of impala-eval."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, _option("RUN [RUN ...]", "")]
    """Folders of runs, finished or still training."""
    episodes: int = 100
    """Episodes per run; 0: none, for --plot, --video or --export alone."""
    greedy: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take the most probable action; by default actions are drawn, as in training."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object per run and line."""
    seed: int = 0
    """Seed of environments and draws."""
    num_slots: int = 0
    """Environment slots that play side by side, the same number of episodes each; 0: up to 16, as
    many as divide the episodes evenly."""
    max_episode_steps: int = 0
    """Agent steps after which episodes are cut; 0: 108,000, or 10,000 while none has ended."""
    env: Annotated[str | None, _option("ID", "(default: the run's)")] = None
    """Judge on this environment in place of the run's; spaces must be the same."""
    env_kwargs: Annotated[str | None, _option("JSON", "(default: the run's)")] = None
    """Arguments for the environment, a JSON object; '{}': none."""
    env_wrapper: Annotated[
        tuple[str, ...] | None, _option("[MODULE:WRAPPER ...]", "(default: the run's)")
    ] = None
    """Wrappers around each environment, the first innermost; without a name: none."""
    checkpoint: Annotated[str | None, _option("NAME", "(default: the newest good one)")] = None
    """Name of the checkpoint to judge, such as step-000000200000."""
    plot: Annotated[Path | None, _option("FILE", "(default: none)")] = None
    """Draw the learning curves of all runs into this file (.png, .svg, .pdf)."""
    video: Annotated[Path | None, _option("DIR", "(default: none)")] = None
    """Film episodes into files in this folder; needs the extra video."""
    video_episodes: int = 3
    """Episodes to film, one file each."""
    video_format: Literal["mp4", "gif"] = "mp4"
    """mp4: all pictures in full size; gif: shrunk, and long episodes thinned out."""
    video_max_steps: int = 10_000
    """Agent steps after which a filmed episode is cut."""
    export: Annotated[Path | None, _option("DIR", "(default: none)")] = None
    """Write the policy into this folder: safetensors, JSON and, with the extra onnx, ONNX."""
    no_onnx: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave policy.onnx out of the export."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Where `argv` is None it has the process to itself: only results go to stdout, and it ends the
    process, whatever threads and exit handlers the environment has left.
    """
    if argv is None:
        prepare_standard_streams()
        search_working_directory(for_good=True)
        end_process(run(sys.argv[1:], has_process=True))
    return run(argv)


def run(argv: Sequence[str], *, has_process: bool = False) -> int:
    """Runs the command and returns its exit code; see `main` for `has_process`."""
    show_version(PROGRAM, argv)
    arguments = tyro.cli(EvalArguments, prog=PROGRAM, description=DESCRIPTION, args=argv)
    if not arguments.runs:
        print("error: name the folder of at least one run; see --help", file=sys.stderr)  # noqa: T201
        return exit_codes.USAGE
    results = claim_stdout() if has_process else sys.stdout
    configure_logging(logging.WARNING, PROGRAM)
    if has_process:
        guard_signals(signal.SIGINT, signal.SIGTERM)
    reports: list[RunReport] = []
    plot, code = None, exit_codes.OK

    def show() -> None:
        """Shows what was made before an error, too; the reader of a pipe may have left."""
        with contextlib.suppress(BrokenPipeError), contextlib.redirect_stdout(results):
            show_reports(reports, as_json=arguments.json, plot=plot)
            results.flush()

    def end_hung(text: str) -> None:
        show()
        end_hung_process(text)

    try:
        _validate(arguments)
        arguments = _with_absolute_paths(arguments)
        if arguments.plot is not None:
            from impala_actor.evaluation.plotting import plot_runs, read_curve

            for path in arguments.runs:
                read_curve(path)  # before the episodes, which take minutes
        _report_all(arguments, reports, end_hung if has_process else None)
        if arguments.plot is not None:
            plot_runs(arguments.runs, arguments.plot)
            plot = arguments.plot
    except ImpalaError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        code = exit_codes.exit_code_of(error)
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    show()
    return code


def _with_absolute_paths(arguments: EvalArguments) -> EvalArguments:
    """Returns arguments that mean the same after an environment has changed the folder."""
    paths = {
        name: path.absolute()
        for name in ("plot", "video", "export")
        if (path := getattr(arguments, name)) is not None
    }
    runs = tuple(path.absolute() for path in arguments.runs)
    return dataclasses.replace(arguments, runs=runs, **paths)


def _validate(arguments: EvalArguments) -> None:
    require_held(arguments, "--")
    require_at_least("--episodes", arguments.episodes, 0)
    require_at_least("--seed", arguments.seed, 0)
    require_between("--num-slots", arguments.num_slots, 0, 1 << 16)
    require_at_least("--max-episode-steps", arguments.max_episode_steps, 0)
    require(
        "--episodes",
        arguments.episodes,
        bool(arguments.episodes or arguments.plot or arguments.video or arguments.export),
        "at least 1, or 0 with --plot, --video or --export",
    )
    require_at_least("--video-episodes", arguments.video_episodes, 1)
    require_at_least("--video-max-steps", arguments.video_max_steps, 1)
    validate_env_kwargs("--env-kwargs", arguments.env_kwargs or "")
    validate_env_wrapper("--env-wrapper", arguments.env_wrapper or ())
    require(
        "--export",
        str(arguments.export),
        arguments.export is None or len(arguments.runs) == 1,
        "given with a single RUN",
    )
    require(
        "--plot",
        str(arguments.plot),
        arguments.plot is None or importlib.util.find_spec("matplotlib") is not None,
        "left out here",
        "matplotlib is not installed (container images leave it out)",
    )
    require_runs(arguments.runs, arguments.checkpoint)
    if arguments.plot is not None:
        require_picture(arguments.plot)
    if arguments.video is not None:
        require_folder("--video", arguments.video)
    if arguments.export is not None:
        require_folder("--export", arguments.export, EXPORT_RULE)


def _report_all(
    arguments: EvalArguments,
    reports: list[RunReport],
    on_hang: Callable[[str], None] | None,
) -> None:
    """Adds what is made of each run to `reports`, also of a run with which an error comes.

    `on_hang` is called where an environment does not return in the run's `env_timeout_s`; None:
    it has any time.
    """
    if not (arguments.episodes or arguments.video or arguments.export):
        return
    import torch

    torch.set_num_threads(1)  # batches are small: further threads would only wait for each other
    if arguments.video is not None:
        from impala_actor.environments.rendering import prepare_headless

        prepare_headless()
    for path in arguments.runs:
        number = len(reports)
        for report in _report(path, arguments, on_hang):
            reports[number:] = [report]


def _report(
    path: Path, arguments: EvalArguments, on_hang: Callable[[str], None] | None
) -> Iterator[RunReport]:
    """Films, evaluates and exports one run, in this order: an export contains its evaluation.

    Yields what there is after each of them.
    """
    from impala_actor.environments.watchdog import EnvironmentWatchdog
    from impala_actor.evaluation.run_evaluation import evaluate_frozen_run
    from impala_common.policy.frozen_run import load_frozen_run

    if arguments.export is not None:
        from impala_actor.evaluation.policy_export import validate_export_folder

        validate_export_folder(arguments.export)  # before the episodes, which take minutes
    trained = load_frozen_run(path, arguments.checkpoint)
    config = trained.environment_config
    if arguments.env_kwargs is not None:
        config = dataclasses.replace(config, env_kwargs=arguments.env_kwargs)
    if arguments.env_wrapper is not None:
        config = dataclasses.replace(config, env_wrapper=arguments.env_wrapper)
    run = dataclasses.replace(trained, environment_config=config)
    report = RunReport(str(path))
    watchdog = EnvironmentWatchdog(config.env_timeout_s if on_hang else 0.0, on_hang)
    if arguments.video is not None:
        from impala_actor.video.run_video import film_run

        videos = film_run(
            run,
            arguments.video,
            num_episodes=arguments.video_episodes,
            video_format=arguments.video_format,
            seed=arguments.seed,
            is_greedy=arguments.greedy,
            env=arguments.env,
            max_steps=arguments.video_max_steps,
            watchdog=watchdog,
        )
        report = dataclasses.replace(report, videos=tuple(videos))
        yield report
    if arguments.episodes:
        evaluation = evaluate_frozen_run(
            run,
            num_episodes=arguments.episodes,
            num_slots=arguments.num_slots or _choose_num_slots(arguments.episodes),
            seed=arguments.seed,
            is_greedy=arguments.greedy,
            env=arguments.env,
            max_episode_steps=arguments.max_episode_steps,
            watchdog=watchdog,
        )
        report = dataclasses.replace(report, evaluation=evaluation)
        yield report
    watchdog.close()
    if arguments.export is None:
        return
    from impala_actor.evaluation.policy_export import export_policy

    judged = report.evaluation.evaluation if report.evaluation else None
    is_elsewhere = config != trained.environment_config or arguments.env not in (None, trained.env)
    exported = export_policy(
        trained,
        arguments.export,
        evaluation=None if is_elsewhere else judged,
        with_onnx=not arguments.no_onnx,
    )
    notes = exported.notes
    if judged and is_elsewhere:
        notes += ("the evaluation is left out: it was not on the environment of training",)
    yield dataclasses.replace(report, exported=exported.paths, notes=notes)


def _choose_num_slots(num_episodes: int) -> int:
    """Returns 8 to 16 slots that divide the episodes evenly, or 16 (then a few more are played)."""
    even = [slots for slots in range(16, 7, -1) if num_episodes % slots == 0]
    return even[0] if even else 16


if __name__ == "__main__":
    main()
