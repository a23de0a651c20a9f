"""impala-report writes a page that shows every run and works without a network; impala-runs lists.

Written to find: names of runs that are HTML, plotly loaded from its network, lines that a resume
replaced drawn again, a trial lock on a run whose holder has ended.
"""

from __future__ import annotations

import html.parser
import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from impala_actor import report_cli, runs_cli
from impala_actor.evaluation.plotting import plot_runs
from impala_actor.report.run_summary import find_runs, is_running, summarise_run
from impala_actor.report.run_view import of, read_views, share_of
from impala_common.config.sections import EnvironmentConfig, OptimizerConfig
from impala_common.config.toml_io import dump_config
from impala_common.config.train import TrainConfig
from impala_common.process import exit_codes
from impala_common.run import metrics
from impala_common.run.run_data import read_run
from impala_common.run.run_directory import RunDirectory

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SECTIONS = ("summary", "return", "learning", "throughput", "lag", "actors", "settings")


def make_run(path: Path, learning_rate: float = 1e-3, num_lines: int = 40) -> Path:
    """Makes the folder of a run of 4000 steps with evaluations, a finding and a video."""
    run = RunDirectory(path)
    run.create()
    config = TrainConfig(
        environment=EnvironmentConfig(env="CartPole-v1"),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
    )
    run.config_path.write_text(dump_config(config))
    lines = []
    for number in range(1, num_lines + 1):
        line = dict.fromkeys(metrics.ALL_METRICS, 0.5)
        line = {name: value for name, value in line.items() if "evaluation" not in name}
        line |= {
            metrics.STEPS: number * 100,
            metrics.TIME_S: float(number),
            metrics.UPDATES: number,
            metrics.RETURN_MEAN: float(number),
            metrics.FINDING_ENTROPY: float(number > num_lines // 2),
        }
        lines.append(line)
    point = {metrics.STEPS: 2000, metrics.TIME_S: 20.0, metrics.EVALUATION_RETURN_MEAN: 77.0}
    point |= {metrics.EVALUATION_LOW: 70.0, metrics.EVALUATION_HIGH: 84.0}
    texts = [json.dumps(line) for line in [*lines, point]]
    run.metrics_path.write_text("\n".join(texts) + '\n{"torn')
    run.videos_path.mkdir()
    (run.videos_path / "step-2000.mp4").write_bytes(b"film")
    run.evaluation_path.write_text(json.dumps({"return_mean": 41.5, "standard_error": 0.5}))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "first")
    make_run(folder / "second <b>", learning_rate=0.25)
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    output = runs / "page.html"
    arguments = [str(runs / "first"), str(runs / "second <b>"), "--output", str(output)]
    assert report_cli.main(arguments) == exit_codes.OK
    return output


class _Links(html.parser.HTMLParser):
    """Collects ids, and what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []
        names = ("src",) if tag != "link" else ("src", "href")
        self.loaded += [str(values[name]) for name in names if values.get(name)]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_page_has_everything_and_loads_nothing(page: Path) -> None:
    links = _Links()
    links.feed(page.read_text())

    assert [name for name in links.ids if name in (*SECTIONS, "videos")] == [*SECTIONS, "videos"]
    assert [url[:25] for url in links.loaded] == ["data:video/mp4;base64,Zml"] * 2
    text = " ".join(links.text)
    for shown in ("second <b>", "1 settings differ", "41.50 ± 0.50", "4,000 of", "0.25", "77.00"):
        assert shown in text
    assert "entropy near zero" in text


@pytest.mark.timeout(180)
def test_page_is_drawn_by_a_browser_without_a_network(page: Path, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1250,3000",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip

    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=150, check=True,
    )  # fmt: skip

    assert done.stdout.count('class="plot-container') == 5
    assert done.stdout.count('class="scatterlayer') >= 2 + 9 + 6 + 3 + 3
    assert "agent steps per second" in done.stdout


def test_lines_that_a_resume_replaced_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_lines=5)
    with RunDirectory(run).metrics_path.open("a") as file:
        file.write("\n")
        for steps in (300, 400):
            file.write(json.dumps({metrics.STEPS: steps, metrics.UPDATES: 9, "x": steps}) + "\n")

    (view,) = read_views([run])

    assert [line[metrics.STEPS] for line in view.lines] == [100, 200, 300, 400]
    assert view.column(of("x"), metrics.STEPS) == ([300.0, 400.0], [300.0, 400.0])


def test_report_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", num_lines=0)

    assert report_cli.main([]) == exit_codes.USAGE
    assert report_cli.main([str(tmp_path)]) == exit_codes.CONFIG
    assert report_cli.main([str(run), "--output", str(tmp_path / "no" / "page")]) == 78
    assert report_cli.main([str(run)]) == exit_codes.OK  # a run without a line yet
    errors = capsys.readouterr().err
    assert "impala-runs lists them" in errors
    assert "path is" in errors
    assert "--output is" in errors


def test_listed_run_is_one_line_in_a_pipe_whatever_its_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: the state folded to "finishe" and "d" at 80 columns once a run's age took more room."""
    monkeypatch.setenv("COLUMNS", "60")
    name = "[red]" + "long-name-" * 12
    make_run(tmp_path / name)

    assert runs_cli.main([str(tmp_path)]) == exit_codes.OK

    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == [name, "CartPole-v1", "stopped"]


def test_runs_are_listed_with_their_state(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "deep" / "run", num_lines=0)
    broken = make_run(tmp_path / "broken")
    RunDirectory(broken).config_path.write_text("[nonsense]\n")

    assert runs_cli.main([str(runs)]) == exit_codes.OK
    shown = capsys.readouterr().out
    assert runs_cli.main([str(tmp_path), "--json"]) == exit_codes.OK
    by_name = {
        Path(line["path"]).name: line
        for line in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert runs_cli.main([str(tmp_path / "nothing")]) == exit_codes.CONFIG

    for text in ("CartPole-v1", "stopped", "4,000", "40", "77"):
        assert text in shown
    assert by_name["run"]["state"] == "empty"
    assert by_name["broken"]["state"] == "unreadable"
    assert "nonsense" in by_name["broken"]["problem"]
    assert len(find_runs(tmp_path)) == 2


def test_run_whose_holder_lives_is_running(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")

    with RunDirectory(run).lock():
        assert is_running(run)
        assert summarise_run(run).state == "running"
    assert not is_running(run)
    RunDirectory(run).lock_path.write_text("999999999\n")  # an ended process
    descriptor = os.open(RunDirectory(run).lock_path, os.O_RDONLY)
    os.close(descriptor)
    assert not is_running(run)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({metrics.UPDATE_S: 0.02, metrics.UPDATES_PER_S: 30.0}, 0.6),
        ({metrics.UPDATE_S: 0.1, metrics.UPDATES_PER_S: 22.0}, 1.0),
        ({metrics.UPDATE_S: 0.1}, math.nan),
    ],
)
def test_share_of_time_is_at_most_one(line: dict[str, float], expected: float) -> None:
    """Seen: 2.2 on a page of a run on a busy machine."""
    share = share_of(metrics.UPDATE_S, metrics.UPDATES_PER_S)(line)

    assert share == pytest.approx(expected, nan_ok=True)


def test_folder_whose_name_is_no_utf8_is_shown_with_a_question_mark(tmp_path: Path) -> None:
    """Seen to fail: the page could not be written, and matplotlib drew no such name."""
    run = make_run(tmp_path / "r\udcff", num_lines=3)
    output = tmp_path / "page.html"

    assert report_cli.main([str(run), "--output", str(output)]) == exit_codes.OK
    plot_runs([run], tmp_path / "curve.png")

    assert "r?" in output.read_text()
    assert (tmp_path / "curve.png").stat().st_size > 0


MALFORMED = ["text", True, [1.0], {"a": 1}, math.nan, 10**400, 1e300, None]


@pytest.mark.parametrize("value", MALFORMED, ids=[str(value)[:8] for value in MALFORMED])
def test_lines_whose_values_are_no_numbers_are_read_without_them(
    tmp_path: Path, value: object
) -> None:
    """Seen to fail for all but None, with the values read as they stand."""
    pytest.importorskip("plotly")
    run = RunDirectory(make_run(tmp_path / "run"))
    lines = run.metrics_path.read_text().splitlines()
    for index in (10, -2):  # of metrics, and of an evaluation
        line = dict.fromkeys(json.loads(lines[index]), value)
        lines[index] = json.dumps(line | {metrics.STEPS: 1050})
    lines.append(json.dumps({metrics.STEPS: value}))
    run.metrics_path.write_text("\n".join(lines))

    output = str(tmp_path / "page.html")
    assert report_cli.main([str(run.path), "--output", output]) == exit_codes.OK
    assert runs_cli.main([str(run.path)]) == exit_codes.OK
    plot_runs([run.path], tmp_path / "curve.png")
    data = read_run(run.path)
    assert len(data.metrics) == 40
    assert data.metrics[10][metrics.LOSS_TOTAL] is None
