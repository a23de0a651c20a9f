"""The class IMPALA where users run it: scripts, Ctrl-C, spawned processes, notebooks."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nbclient
import nbformat
import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SCRIPT = """
    import gymnasium, os, signal, sys
    from impala_server import IMPALA

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run with nohup

    class MyEnv(gymnasium.ObservationWrapper):
        def observation(self, observation):
            return observation * 2

    gymnasium.register("Mine-v0", lambda: MyEnv(gymnasium.make("CartPole-v1")))
    agent = IMPALA({env}, run_dir=sys.argv[1], num_actors=1, envs_per_actor=4, num_steps=8,
                   batch_size=4, feature_dim=8, hidden_dim=8, quiet=True)
    print("ready", flush=True)
    result = agent.train({steps})
    print(result.reason, agent.global_step == result.num_steps, flush=True)
"""


@contextlib.contextmanager
def start_script(path: Path, env: str, steps: int) -> Iterator[subprocess.Popen[str]]:
    """Starts a user's script without `if __name__ == "__main__"`; ends with it."""
    script = path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(env=env, steps=steps)))
    with subprocess.Popen(
        [sys.executable, str(script), str(path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=path,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_script_without_a_guard_trains_on_an_id_it_registers(tmp_path: Path) -> None:
    with start_script(tmp_path, "'Mine-v0'", 200) as process:
        out, err = process.communicate(timeout=120)

    assert process.returncode == 0, err
    assert out.split() == ["ready", "finished", "True"]


def test_script_that_is_interrupted_stops_in_order_and_goes_on_after_train(tmp_path: Path) -> None:
    with start_script(tmp_path, "'CartPole-v1'", 10_000_000) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        deadline_s = time.monotonic() + 100
        while not metrics.exists() and time.monotonic() < deadline_s:
            threading.Event().wait(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)

    assert process.returncode == 0, err
    assert out.split() == ["ready", "interrupted", "True"]
    assert len(children) == 3
    assert not [child for child in children if child.is_running()]


SPAWNED = """
    import multiprocessing, sys
    from impala_server import IMPALA
    import gymnasium

    class MyEnv(gymnasium.Wrapper):
        pass

    def make_env():
        return MyEnv(gymnasium.make("CartPole-v1"))

    def work(path):
        agent = IMPALA(make_env, run_dir=path, num_actors=1, envs_per_actor=4, num_steps=8,
                       batch_size=4, feature_dim=8, hidden_dim=8, quiet=True)
        print(agent.train(200).reason)

    if __name__ == "__main__":
        process = multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1],))
        process.start()
        process.join()
        sys.exit(process.exitcode)
"""


@pytest.mark.extended
def test_agent_in_a_spawned_process_trains_on_a_function_of_the_main_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SPAWNED))

    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "finished"


@pytest.mark.extended
def test_notebook_cell_trains_on_a_class_of_another_cell(tmp_path: Path) -> None:
    cells = [
        "import gymnasium\nclass MyEnv(gymnasium.Wrapper):\n    pass",
        f"""
        from impala_server import IMPALA
        agent = IMPALA(lambda: MyEnv(gymnasium.make("CartPole-v1")), num_actors=1, num_steps=8,
                       envs_per_actor=4, feature_dim=8, hidden_dim=8,
                       run_dir={str(tmp_path / "run")!r})
        """,
        "agent.train(200).reason",
        "agent.eval(2)['num_episodes']",
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in cells]
    )

    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()

    outputs = [cell.outputs[-1]["data"]["text/plain"] for cell in notebook.cells[2:]]
    assert outputs == ["'finished'", "2"]
