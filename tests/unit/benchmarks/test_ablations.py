"""The ablations: their page from canned results, and options that impala-train knows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from benchmarks.suite import ablations_page
from benchmarks.suite.ablation_studies import STUDIES

from impala_common.config.cli import parse_train_config


@pytest.mark.parametrize("name", STUDIES)
def test_variants_are_settings_of_impala_train(name: str) -> None:
    """Planted: `--publish-every` in place of `--publish-interval-updates`."""
    study = STUDIES[name]
    configs = [
        parse_train_config(
            "impala-train", ["--env", study.env, *shlex.split(options)], "", default_port=0
        ).config
        for options in study.variants.values()
    ]

    assert all(config.environment.env == study.env for config in configs)


def test_page_has_a_row_for_each_variant_that_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = STUDIES["lag_cartpole"]
    (first, second, *_) = study.variants
    rows = [
        {
            "variant": variant,
            "seed": seed,
            "return_mean": value,
            "policy_lag_mean": 3.0,
            "training_time_s": 9.0,
            "commit": "abc1234",
        }
        for variant, seed, value in ((first, 1, 20.0), (first, 0, 10.0), (second, 0, 5.0))
    ]
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "lag_cartpole.json").write_text(json.dumps({"runs": rows}))
    monkeypatch.setattr(ablations_page, "RESULTS", tmp_path)

    page = ablations_page.render_page()

    assert f"| {first} |" in page
    assert "| 10.0, 20.0 | 15.0 | 10.0 to 20.0 | 3.0 | 9 |" in page
    assert page.count("\n| weights published") == 2
    assert "Not run yet." in page
