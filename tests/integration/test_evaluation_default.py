"""`impala-eval` and `agent.eval()` have one default: actions are drawn, and both say so."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
from run_folders import make_run_folder

from impala_actor import eval_cli
from impala_agent.agent import IMPALA

BANDIT = "impala_common.testing.environments:ContextualBandit-v0"


def test_default_of_command_and_method_is_to_draw_actions() -> None:
    """Before: the method took the most probable actions, the command drew them."""
    defaults = {field.name: field.default for field in dataclasses.fields(eval_cli.EvalArguments)}

    assert defaults["greedy"] is False
    assert inspect.signature(IMPALA.eval).parameters["greedy"].default is False


def test_both_say_what_the_default_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        eval_cli.main(["--help"])

    help_text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "by default actions are drawn, as in training" in help_text
    assert "drawn" in " ".join((inspect.getdoc(IMPALA.eval) or "").split())


@pytest.mark.parametrize(("options", "is_greedy"), [([], False), (["--greedy"], True)])
def test_command_says_how_actions_were_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], is_greedy: bool
) -> None:
    """Actions of fresh weights near chance when drawn: returns then differ between episodes."""
    run = make_run_folder(tmp_path / "run", BANDIT)

    assert eval_cli.main([str(run), "--json", "--episodes", "16", *options]) == 0

    result = json.loads(capsys.readouterr().out)
    assert result["is_greedy"] is is_greedy
