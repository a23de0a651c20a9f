"""Candidates, verdicts and the best checkpoint: the learner's part of evaluation.

Owned by the controller and called on its thread only. A candidate is a complete checkpoint in
RUN/candidates, written from what a learner thread copied at the update that crossed the
interval; it is removed after its verdict, or becomes RUN/checkpoints/best. Nothing here may end
the run: what cannot be written is logged and left out.
"""

from __future__ import annotations

import logging
import shutil
from collections import OrderedDict
from typing import Any, NamedTuple, Protocol

from impala_common.config import EvaluationConfig
from impala_common.errors import CheckpointError, NotFoundError
from impala_common.run import metrics
from impala_common.run.best_checkpoint import VERDICT, BestCheckpoint
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server.learner.learner import Learner

_LOG = logging.getLogger(__name__)
_MAX_CANDIDATES = 8  # one that waits and one for every evaluator; the front end drops the others
_MAX_JUDGED = 64
_DOUBT_FACTOR = 10.0
"""How many times the largest return of training is believed: whole games are longer than lives."""

Result = dict[str, Any]
"""What was reported of one mode, by the fields of EvaluationResult. Any: JSON."""

_NUMBERS = {
    "return_mean": (metrics.EVALUATION_RETURN_MEAN, metrics.GREEDY_RETURN_MEAN),
    "standard_error": (metrics.EVALUATION_ERROR, metrics.GREEDY_ERROR),
    "confidence_low": (metrics.EVALUATION_LOW, metrics.GREEDY_LOW),
    "confidence_high": (metrics.EVALUATION_HIGH, metrics.GREEDY_HIGH),
    "return_min": (metrics.EVALUATION_MIN, metrics.GREEDY_MIN),
    "return_max": (metrics.EVALUATION_MAX, metrics.GREEDY_MAX),
    "length_mean": (metrics.EVALUATION_LENGTH_MEAN, metrics.GREEDY_LENGTH_MEAN),
    "num_episodes": (metrics.EVALUATION_EPISODES, metrics.GREEDY_EPISODES),
    "num_cut": (metrics.EVALUATION_CUT, metrics.GREEDY_CUT),
}
"""By field of a result: its metric for drawn and for likeliest actions."""


class Evaluated(Protocol):
    """What evaluations need of the controller."""

    learner: Learner | None

    def count_time(self, state: dict[str, Any]) -> None:
        """Adds the time of this life to the counters in a checkpoint's state."""

    def record_evaluation(self, values: dict[str, float | None], step: int) -> None:
        """Writes a line of metrics of `step` and shows it in the status."""

    def forget_best(self) -> None:
        """Takes the best out of the status."""

    def tell_front_end(self, kind: str, **fields: Any) -> None:
        """Sends a message."""


class _Candidate(NamedTuple):
    step: int
    time_s: float


class Evaluations:
    """All candidates of this learner life, and the best of the run."""

    def __init__(self, controller: Evaluated, run: RunDirectory, config: EvaluationConfig) -> None:
        """Works for `controller`; `begin` reads what the run holds."""
        self._controller = controller
        self._config = config
        self._run = run
        self._store = CheckpointStore(run.candidates_path)
        self._checkpoint = BestCheckpoint(CheckpointStore(run.checkpoints_path))
        self._candidates: OrderedDict[str, _Candidate] = OrderedDict()
        self._judged: OrderedDict[str, tuple[bool, bool]] = OrderedDict()  # best? doubtful?
        self._best: tuple[float, int] | None = None  # mean return, step

    def begin(self) -> None:
        """Removes what another life left behind and finds out how good the best is."""
        shutil.rmtree(self._run.candidates_path, ignore_errors=True)
        try:
            self._checkpoint.recover()
            if (best := self._checkpoint.describe()) is not None:
                verdict = best.state[VERDICT][self._config.eval_best_by]
                self._best = float(verdict["return_mean"]), best.step
        except (CheckpointError, OSError, KeyError, TypeError, ValueError) as error:
            _LOG.warning("the best checkpoint cannot be read; the next takes its place: %s", error)
        if self._best is not None:
            _LOG.info("the best so far is of step %d: return %g", self._best[1], self._best[0])

    def tick(self) -> None:
        """Writes the candidate that was set aside since the last call, if any."""
        learner = self._controller.learner
        if learner is None or (snapshot := learner.take_candidate()) is None:
            return
        tensors, state = snapshot
        self._controller.count_time(state)
        counters = state["counters"]
        step, version = counters["trained_steps"], counters["policy_version"]
        name = f"candidate-{step:012d}-{version}"
        try:
            self._store.save(step, tensors, state, name)
        except CheckpointError as error:
            _LOG.error("the weights of step %d are not evaluated: %s", step, error)
            return
        self._candidates[name] = _Candidate(step, counters["wall_time_s"])
        while len(self._candidates) > _MAX_CANDIDATES:
            self.drop(next(iter(self._candidates)))
        self._controller.tell_front_end(
            "candidate", name=name, trained_steps=step, policy_version=version
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for a verdict."""
        return not self._candidates

    def drop(self, name: str) -> None:
        """Removes a candidate that nobody will play any more; unknown ones are none."""
        if self._candidates.pop(name, None) is not None:
            self._store.remove(name)

    def report(
        self,
        name: str,
        evaluator_id: str,
        sampled: Result,
        greedy: Result,
        duration_s: float,
        seed: int,
        max_abs_return: float | None = None,
    ) -> dict[str, bool]:
        """Takes a candidate's verdict; returns whether it is the best, and whether it was known.

        Returns far beyond those seen are doubtful: written down, but never the best.

        Args:
          name: the candidate.
          evaluator_id: who played it.
          sampled: how it did drawing actions.
          greedy: how it did taking the likeliest.
          duration_s: time that took.
          seed: of the episodes.
          max_abs_return: largest return, without sign, that training has seen; None: none yet.

        Raises:
          NotFoundError: no such candidate.
        """
        if name in self._judged:
            is_best, is_doubtful = self._judged[name]
            return {"is_best": is_best, "is_doubtful": is_doubtful, "is_duplicate": True}
        candidate = self._candidates.get(name)
        if candidate is None:
            raise NotFoundError(f"no candidate {name!r}: it was replaced, or is of another life")
        verdict = {"sampled": sampled, "greedy": greedy, "evaluator_id": evaluator_id, "seed": seed}
        is_doubtful = self._is_doubtful(max_abs_return, sampled, greedy)
        if is_doubtful:
            _LOG.warning(
                "the evaluation of %s by %s is doubtful and cannot make it the best: returns of %g "
                "to %g, while training saw at most %s without sign",
                name, evaluator_id, min(sampled["return_min"], greedy["return_min"]),
                max(sampled["return_max"], greedy["return_max"]), max_abs_return,
            )  # fmt: skip
        is_best = not is_doubtful and self._keep_if_best(name, candidate.step, verdict)
        self.drop(name)
        self._judged[name] = is_best, is_doubtful
        while len(self._judged) > _MAX_JUDGED:
            self._judged.popitem(last=False)
        values: dict[str, float | None] = {metrics.TIME_S: candidate.time_s}
        for field, names in _NUMBERS.items():
            values |= dict(zip(names, (sampled[field], greedy[field]), strict=True))
        values[metrics.EVALUATION_S] = duration_s
        if self._best is not None:
            values[metrics.EVALUATION_BEST], values[metrics.EVALUATION_BEST_STEPS] = self._best
        self._controller.record_evaluation(values, candidate.step)
        return {"is_best": is_best, "is_doubtful": is_doubtful, "is_duplicate": False}

    def clear_best(self) -> dict[str, Any]:
        """Sets the best checkpoint aside; returns its new name and the return it was the best by.

        Raises:
          NotFoundError: there is none.
          CheckpointError: the disk refuses.
        """
        name = self._checkpoint.set_aside()
        value = self._best[0] if self._best is not None else 0.0
        self._best = None
        self._controller.forget_best()
        _LOG.warning("the best checkpoint was set aside as %s", name)
        return {"name": name, "return_mean": value}

    def _is_doubtful(self, max_abs_return: float | None, *results: Result) -> bool:
        known = [abs(self._best[0])] if self._best is not None else []
        known += [] if max_abs_return is None else [max_abs_return]
        if not known:
            return True
        limit = _DOUBT_FACTOR * max(1.0, *known)
        ends = [result[end] for result in results for end in ("return_min", "return_max")]
        return any(abs(end) > limit for end in ends)

    @property
    def shown(self) -> dict[str, float]:
        """What the status says before the first verdict of this life."""
        if self._best is None:
            return {}
        value, step = self._best
        return {metrics.EVALUATION_BEST: value, metrics.EVALUATION_BEST_STEPS: step}

    def close(self) -> None:
        """Removes all candidates: their verdicts would come too late."""
        self._candidates.clear()
        shutil.rmtree(self._run.candidates_path, ignore_errors=True)

    def _keep_if_best(self, name: str, step: int, verdict: dict[str, Any]) -> bool:
        """Makes a candidate the best if it is better than the best; a tie keeps the older."""
        value = float(verdict[self._config.eval_best_by]["return_mean"])
        if self._best is not None and value <= self._best[0]:
            return False
        try:
            self._checkpoint.adopt(self._store.path / name, verdict)
        except CheckpointError as error:
            _LOG.error("the best so far, of step %d, could not be kept: %s", step, error)
            return False
        self._best = value, step
        return True
