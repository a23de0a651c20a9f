"""Evaluations: the learner's candidates, their results, and the best checkpoint.

Owned by the controller and called on its thread only. A candidate is a complete checkpoint in
RUN/candidates, written from the copy that a learner thread made at the update that crossed the
interval. After its results it is removed, or becomes RUN/checkpoints/best. No failure here ends the
run: a candidate that cannot be written is logged and left out.
"""

from __future__ import annotations

import logging
import shutil
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from impala_common.config import EvaluationConfig
from impala_common.errors import CheckpointError, NotFoundError
from impala_common.run import metrics
from impala_common.run.best_checkpoint import EVALUATION, BestCheckpoint
from impala_common.run.checkpoints import CheckpointStore
from impala_common.run.run_directory import RunDirectory
from impala_server.learner.learner import Learner
from impala_server.messages import CandidateReady, Message

_LOG = logging.getLogger(__name__)
_MAX_CANDIDATES = 8  # one that waits and one for every evaluator; the front end drops the others
_MAX_JUDGED = 64
_DOUBT_FACTOR = 10.0
"""Returns up to this many times the largest of training are believed. The factor is large because
evaluation may play longer episodes, for example whole games instead of single lives."""
_MAX_BELIEVED_LENGTH = 1_000_000

Result = dict[str, Any]
"""Reported results of one mode, by the fields of EvaluationResult. Any: JSON."""

_RETURN_ENDS = ("return_min", "return_max")
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
"""Field of a result -> its metric for drawn and for likeliest actions."""


class _Candidate(NamedTuple):
    step: int
    time_s: float


class Evaluations:
    """All candidates of this learner life, and the best of the run."""

    def __init__(
        self,
        run: RunDirectory,
        config: EvaluationConfig,
        *,
        tell_front_end: Callable[[Message], None],
        record: Callable[[dict[str, float | None], int], None],
        drop_shown: Callable[..., None],
    ) -> None:
        """Keeps candidates in the folder of `run`; `begin` reads it.

        Args:
          run: the run's folder.
          config: the measure of the best candidate.
          tell_front_end: sends the front end a message.
          record: writes a line of metrics of a step and shows it in the status.
          drop_shown: removes metrics, by name, from the status.
        """
        self._tell_front_end = tell_front_end
        self._record = record
        self._drop_shown = drop_shown
        self._config = config
        self._run = run
        self._store = CheckpointStore(run.candidates_path)
        self._checkpoint = BestCheckpoint(CheckpointStore(run.checkpoints_path))
        self._candidates: OrderedDict[str, _Candidate] = OrderedDict()
        self._judged: OrderedDict[str, tuple[bool, bool]] = OrderedDict()  # best? doubtful?
        self._best: tuple[float, int] | None = None  # mean return, step
        self._num_played = 0.0  # agent steps of the last evaluation
        self._last_step = 0  # of the newest candidate

    def begin(self) -> None:
        """Removes candidates of earlier lives and reads the return of the best checkpoint."""
        shutil.rmtree(self._run.candidates_path, ignore_errors=True)
        try:
            self._checkpoint.recover()
            if (best := self._checkpoint.describe()) is not None:
                evaluation = best.state[EVALUATION][self._config.eval_best_by]
                self._best = float(evaluation["return_mean"]), best.step
        except (CheckpointError, OSError, KeyError, TypeError, ValueError) as error:
            _LOG.warning("the best checkpoint cannot be read; the next takes its place: %s", error)
        if self._best is not None:
            _LOG.info("the best so far is of step %d: return %g", self._best[1], self._best[0])

    def tick(self, learner: Learner, life_s: float) -> None:
        """Writes the candidate that was set aside since the last call, if any and if it is due.

        Args:
          learner: sets candidates aside.
          life_s: training time of this life, which the candidate's counters do not hold.
        """
        if (snapshot := learner.take_candidate()) is None:
            return
        tensors, state = snapshot
        state["counters"]["wall_time_s"] += life_s
        counters = state["counters"]
        step, version = counters["trained_steps"], counters["policy_version"]
        if not self._is_due(step) and not learner.state.is_finished:
            return
        name = f"candidate-{step:012d}-{version}"
        try:
            self._store.save(step, tensors, state, name)
        except CheckpointError as error:
            _LOG.error("the weights of step %d are not evaluated: %s", step, error)
            return
        self._candidates[name] = _Candidate(step, counters["wall_time_s"])
        self._last_step = step
        while len(self._candidates) > _MAX_CANDIDATES:
            self.drop(next(iter(self._candidates)))
        self._tell_front_end(CandidateReady(name, step, version))

    @property
    def is_idle(self) -> bool:
        """Whether no candidate waits for results."""
        return not self._candidates

    def drop(self, name: str) -> None:
        """Removes a candidate that no evaluator will play; ignores an unknown name."""
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
        max_abs_return: float | None,
        max_abs_reward: float,
    ) -> dict[str, bool]:
        """Takes a candidate's results.

        The best checkpoint is in its place before the line of metrics that names it is written.
        Results are doubtful where those that the best is chosen by have returns far beyond those of
        training: they are recorded, but do not make the candidate the best. The other mode may walk
        in circles until its episodes are cut.

        Args:
          name: of the candidate.
          evaluator_id: name of the evaluator.
          sampled: results with drawn actions.
          greedy: results with the likeliest actions.
          duration_s: duration of both.
          seed: of the episodes.
          max_abs_return: median over actors of the largest absolute return in training; None
            before the first episode.
          max_abs_reward: largest absolute reward in training.

        Returns:
          `is_best`, `is_doubtful` and `is_duplicate`, by name.

        Raises:
          NotFoundError: no such candidate.
        """
        if name in self._judged:
            is_best, is_doubtful = self._judged[name]
            return {"is_best": is_best, "is_doubtful": is_doubtful, "is_duplicate": True}
        candidate = self._candidates.get(name)
        if candidate is None:
            raise NotFoundError(f"no candidate {name!r}: it was replaced, or is of another life")
        evaluation: Result = {
            "sampled": sampled,
            "greedy": greedy,
            "evaluator_id": evaluator_id,
            "seed": seed,
        }
        decisive = evaluation[self._config.eval_best_by]
        limit = self._largest_believed(max_abs_return, max_abs_reward, decisive["length_max"])
        largest = max(abs(decisive[end]) for end in _RETURN_ENDS)
        is_doubtful = largest > limit
        if is_doubtful:
            _LOG.warning(
                "the evaluation of %s by %s is doubtful, so it cannot become the best: a return "
                "of %g in absolute value, where training makes at most %g believable",
                name, evaluator_id, largest, limit,
            )  # fmt: skip
        self._num_played = sum(
            one["length_mean"] * one["num_episodes"] for one in (sampled, greedy)
        )
        is_best = not is_doubtful and self._keep_if_best(name, candidate.step, evaluation)
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
        self._record(values, candidate.step)
        return {"is_best": is_best, "is_doubtful": is_doubtful, "is_duplicate": False}

    def clear_best(self) -> dict[str, Any]:
        """Sets the best checkpoint aside, so that the next candidate becomes the best.

        Returns:
          `name`: its new name; `return_mean`: the mean return by which it was the best, None if it
          could not be read.

        Raises:
          NotFoundError: there is none.
          CheckpointError: it cannot be renamed.
        """
        name = self._checkpoint.set_aside()
        return_mean = None if self._best is None else self._best[0]
        self._best = None
        self._drop_shown(metrics.EVALUATION_BEST, metrics.EVALUATION_BEST_STEPS)
        _LOG.warning("the best checkpoint was set aside as %s", name)
        return {"name": name, "return_mean": return_mean}

    def _is_due(self, step: int) -> bool:
        """Returns whether enough was trained for what evaluations play; always after a rollback."""
        share = self._config.eval_max_share
        rest = self._num_played / share if share else 0.0
        return not self._last_step <= step < self._last_step + rest

    def _largest_believed(
        self, max_abs_return: float | None, max_abs_reward: float, length: int
    ) -> float:
        """Returns the absolute return beyond which a result is doubtful."""
        known = [] if self._best is None else [abs(self._best[0])]
        known += [] if max_abs_return is None else [max_abs_return]
        if not known:  # no episode has ended yet: what so many steps could bring
            known = [max_abs_reward * min(length, _MAX_BELIEVED_LENGTH)]
        return _DOUBT_FACTOR * max(1.0, *known)

    @property
    def shown(self) -> dict[str, float]:
        """Fields of the status before the first results of this life."""
        if self._best is None:
            return {}
        value, step = self._best
        return {metrics.EVALUATION_BEST: value, metrics.EVALUATION_BEST_STEPS: step}

    def close(self) -> None:
        """Removes all candidates: their results would come too late."""
        self._candidates.clear()
        shutil.rmtree(self._run.candidates_path, ignore_errors=True)

    def _keep_if_best(self, name: str, step: int, evaluation: dict[str, Any]) -> bool:
        """Makes a candidate the best if it is better than the best; a tie keeps the older."""
        value = float(evaluation[self._config.eval_best_by]["return_mean"])
        if self._best is not None and value <= self._best[0]:
            return False
        try:
            self._checkpoint.adopt(self._store.path / name, evaluation)
        except CheckpointError as error:
            _LOG.error("the best so far, of step %d, could not be kept: %s", step, error)
            return False
        self._best = value, step
        return True
