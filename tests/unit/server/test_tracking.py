"""TensorBoard, W&B and MLflow get settings, metrics, videos and a run of their own.

Written to find: the folder's name as the id in W&B (two folders of one name are one run then),
videos of an earlier life logged again, a failing log that ends the metrics.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from impala_common.config.sections import CheckpointConfig, EnvironmentConfig, OptimizerConfig
from impala_common.config.toml_io import dump_config
from impala_common.config.train import TrainConfig
from impala_common.errors import MissingExtraError
from impala_common.run import metrics
from impala_common.run.run_directory import RunDirectory
from impala_server.tracking.logs import make_logs
from impala_server.tracking.metrics_writer import MetricsWriter
from impala_server.tracking.run_facts import NewVideos, list_settings, make_id, without_paths
from impala_server.tracking.scalar_log import OptionalLog

CONFIG = TrainConfig(
    environment=EnvironmentConfig(env="CartPole-v1"), optimizer=OptimizerConfig(learning_rate=0.25)
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "mine")
    run.create()
    run.config_path.write_text("")
    run.videos_path.mkdir()
    return run


def with_checkpoint(**settings: Any) -> TrainConfig:
    return dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(**settings))


def film(run: RunDirectory, step: int) -> Path:
    path = run.videos_path / f"step-{step:012d}-return-5.gif"
    path.write_bytes(b"GIF89a")
    return path


def test_tensorboard_reads_settings_hparams_and_layout(run: RunDirectory) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.custom_scalar import layout_pb2
    from tensorboard.plugins.hparams import plugin_data_pb2

    writer = MetricsWriter(run, tensorboard=True, settings=list_settings(CONFIG))
    writer.write({metrics.RETURN_MEAN: 7.0}, 100)
    writer.close()

    events = accumulator.EventAccumulator(str(run.tensorboard_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars(metrics.RETURN_MEAN)] == [(100, 7.0)]
    (text,) = events.Tensors("settings/text_summary")
    assert b"| optimizer.learning_rate | `0.25` |" in text.tensor_proto.string_val[0]
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert session.hparams["optimizer.learning_rate"].number_value == 0.25
    assert session.hparams["environment.env"].string_value == "CartPole-v1"
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    columns = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.hparam_infos
    names = [column.name for column in columns]
    assert names[0] == "environment.env"
    assert names.index("optimizer.learning_rate") < names.index("environment.atari_frame_skip")
    assert len(set(names)) == len(names)
    (layout,) = events.Tensors("custom_scalars__config__")
    groups = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category
    assert [group.title for group in groups[:2]] == ["1 return and evaluation", "2 losses"]
    assert groups[0].chart[0].title == "return"


def test_metrics_of_the_layout_exist() -> None:
    from impala_server.tracking.event_file import _LAYOUT

    tags = [tag for cards in _LAYOUT.values() for _kind, names in cards.values() for tag in names]
    assert set(tags) <= set(metrics.ALL_METRICS)


def test_settings_hold_no_paths_of_secrets() -> None:
    settings = list_settings(CONFIG)

    assert settings["optimizer.learning_rate"] == 0.25
    assert not any(name.startswith(("security.", "admin.")) for name in settings)
    assert all(isinstance(value, str | bool | int | float) for value in settings.values())
    secret = dataclasses.replace(CONFIG.security, actor_token_file="/home/me/secret.token")
    text = dump_config(without_paths(dataclasses.replace(CONFIG, security=secret)))
    assert "learning_rate = 0.25" in text
    assert "secret.token" not in text


def test_id_is_the_runs_own_and_stays(tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path / folder / "mine") for folder in ("a", "b")]
    for one in runs:
        one.create()

    first, second = (make_id(one, "wandb") for one in runs)

    assert first != second
    assert first.startswith("mine-")
    assert make_id(runs[0], "wandb") == first
    assert make_id(runs[0], "mlflow", "x") == "x"


def test_videos_are_told_once(run: RunDirectory) -> None:
    film(run, 1)
    videos = NewVideos(run)
    new = film(run, 20)

    assert list(videos.take()) == [(new, 20)]
    assert list(videos.take()) == []


def test_log_that_fails_is_told_once_and_left_out(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def add_scalars(self, scalars: Any, step: int) -> None:
            raise ConnectionError("no route")

        def close(self) -> None:
            raise AssertionError("not to be called")

    writer = MetricsWriter(run, tensorboard=False, further=[OptionalLog("W&B", Failing())])
    with caplog.at_level(logging.WARNING):
        writer.write({}, 1)
        writer.write({}, 2)
        writer.close()

    assert len(metrics.read_metrics(run.metrics_path)) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "W&B failed and gets no further metrics of this run: ConnectionError: no route"
    ]


class FakeWandb(types.ModuleType):
    """The part of wandb that is used; records calls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.num_finished = 0

    def init(self, **arguments: Any) -> FakeWandb:
        self.inits.append(arguments)
        return self

    def define_metric(self, name: str, **arguments: Any) -> None:
        assert name in ("*", metrics.STEPS)

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.num_finished += 1

    def Video(self, path: str, format: str) -> tuple[str, str]:  # noqa: N802 (wandb's names)
        return path, format


def test_wandb_gets_settings_group_and_videos_and_resumes_its_run(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = with_checkpoint(wandb_project="p", wandb_group="g", wandb_entity="e")

    for step in (10, 20):
        writer = MetricsWriter(run, False, make_logs(run, config))
        writer.write({metrics.LOSS_TOTAL: 1.5}, step)
        path = film(run, step)
        writer.close()

    first, second = fake.inits
    assert first["id"] == second["id"] != "mine"
    assert (first["project"], first["group"], first["entity"]) == ("p", "g", "e")
    assert (first["name"], first["resume"]) == ("mine", "allow")
    assert first["config"]["optimizer.learning_rate"] == 0.25
    assert fake.logged[0] == {metrics.LOSS_TOTAL: 1.5, metrics.STEPS: 10}
    assert fake.logged[-1] == {"evaluation/video": (str(path), "gif"), metrics.STEPS: 20}
    assert len(fake.logged) == 4
    assert fake.num_finished == 2


@pytest.mark.timeout(180)
def test_wandb_itself_takes_a_run_offline(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")

    writer = MetricsWriter(run, False, make_logs(run, with_checkpoint(wandb_project="p")))
    writer.write({metrics.LOSS_TOTAL: 1.5}, 10)
    film(run, 10)
    writer.close()

    (offline,) = (run.path / "wandb").glob("offline-run-*")
    assert offline.name.endswith(make_id(run, "wandb"))
    assert list(offline.glob("*.wandb"))
    assert list(offline.glob("files/media/videos/evaluation/*.gif"))


@pytest.mark.timeout(180)
def test_mlflow_gets_settings_metrics_and_videos_and_resumes_its_run(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    config = with_checkpoint(mlflow_experiment="e")
    secret = dataclasses.replace(config.security, actor_token_file="/home/me/secret.token")
    config = dataclasses.replace(config, security=secret)

    for step in (10, 20):
        writer = MetricsWriter(run, False, make_logs(run, config))
        writer.write({metrics.LOSS_TOTAL: step / 10}, step)
        film(run, step)
        writer.close()

    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    (logged,) = found
    assert logged.info.run_id == make_id(run, "mlflow")
    assert (logged.info.run_name, logged.info.status) == ("mine", "FINISHED")
    assert logged.data.params["optimizer.learning_rate"] == "0.25"
    history = client.get_metric_history(logged.info.run_id, metrics.LOSS_TOTAL)
    assert [(m.step, m.value) for m in history] == [(10, 1.0), (20, 2.0)]
    assert len(client.list_artifacts(logged.info.run_id, "videos")) == 2
    settings = Path(client.download_artifacts(logged.info.run_id, "config.toml")).read_text()
    assert "learning_rate = 0.25" in settings
    assert "secret.token" not in settings


@pytest.mark.parametrize(
    ("package", "setting"), [("wandb", "wandb_project"), ("mlflow", "mlflow_experiment")]
)
def test_missing_package_is_named(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, package: str, setting: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingExtraError, match=rf"impala-rl\[{package}\]"):
        make_logs(run, with_checkpoint(**{setting: "x"}))
