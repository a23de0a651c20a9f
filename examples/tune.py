"""Searches learning rate and entropy cost with Optuna; bad trials end early (`pip install optuna`).

    python examples/tune.py [TRIALS] [STEPS]

Trials run one after another, each with a learner and actors of its own. A callback reports the
return of training to Optuna, which prunes trials below the median of those before. The same search
is resumed with a storage: optuna.create_study(storage="sqlite:///tune.db", load_if_exists=True).
"""

import sys

import optuna

from impala_rl import IMPALA, Callback, Progress, make_preset

ENV = "CartPole-v1"


class Prune(Callback):
    """Reports the mean return to a trial, and ends the training where the trial is pruned."""

    def __init__(self, trial: optuna.Trial, every_steps: int) -> None:
        self._trial = trial
        self._every_steps = every_steps
        self._next_steps = every_steps

    def on_update(self, progress: Progress) -> None:
        """Reports at most once each `every_steps` agent steps."""
        mean = progress.metrics.get("episode/return_mean")
        if mean is None or progress.steps < self._next_steps:
            return
        reached = progress.steps // self._every_steps
        self._next_steps = (reached + 1) * self._every_steps
        self._trial.report(mean, reached)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"return {mean:.1f} at step {progress.steps:,}")


def train(trial: optuna.Trial, num_steps: int) -> float:
    """Returns the mean return after a training with the trial's settings."""
    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    entropy_cost = trial.suggest_float("entropy_cost", 1e-4, 3e-2, log=True)
    agent = IMPALA(
        ENV,
        seed=trial.number,
        lr=learning_rate,
        ent_coef=entropy_cost,
        num_actors=1,
        envs_per_actor=8,
        config=make_preset("cartpole"),
        quiet=True,
    )
    agent.train(num_steps, callbacks=[Prune(trial, every_steps=max(1, num_steps // 10))])
    return agent.eval(num_eval_episodes=20).return_mean


def main(num_trials: int, num_steps: int) -> None:
    """Searches and prints the best settings."""
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2),
    )
    study.optimize(lambda trial: train(trial, num_steps), n_trials=num_trials)
    for trial in study.trials:
        value = "-" if trial.value is None else f"{trial.value:.1f}"
        print(f"trial {trial.number}: {trial.state.name.lower()}, return {value}, {trial.params}")
    print(f"best: {study.best_value:.1f} with {study.best_params}")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(*(numbers + [10, 30_000][len(numbers) :]))
