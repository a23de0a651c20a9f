"""The seed's example call, with CartPole by default and Atari by --env.

    python examples/seed_example.py
    python examples/seed_example.py --env PongNoFrameskip-v4 --num-actors 45

The first argument of IMPALA may be the vector environment that the seed's scripts make; its parts
are what actors make for themselves.
"""

from __future__ import annotations

import argparse

import gymnasium

from impala_rl import IMPALA


def make_envs(env_id: str, num_envs: int) -> object:
    """Returns what the seed's make_..._env functions return; for Atari the id says it all."""
    if "NoFrameskip" in env_id or env_id.startswith("ALE/"):
        return env_id  # prepared as in the papers: 84x84, four frames, lives, no-ops
    return gymnasium.make_vec(env_id, num_envs, vectorization_mode="sync")


def main() -> None:
    """Trains, judges and saves an agent."""
    parser = argparse.ArgumentParser(description="Train the seed's example call.")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--num-train-steps", type=int, default=100_000)
    parser.add_argument("--num-actors", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run-dir", default=None)
    arguments = parser.parse_args()

    agent = IMPALA(
        env=make_envs(arguments.env, num_envs=4),
        eval_env=make_envs(arguments.env, num_envs=1),
        tag="impala_example",
        seed=1,
        device=arguments.device,
        num_steps=80,
        num_actors=arguments.num_actors,
        num_learners=4,
        num_storages=60,
        run_dir=arguments.run_dir,
    )
    with agent:
        result = agent.train(num_train_steps=arguments.num_train_steps)
        evaluation = agent.eval(num_eval_episodes=10)
        path = agent.save()
    print(f"{result.reason} after {result.num_steps:,} steps")
    print(f"return {evaluation['episode_rewards']:.1f} over {evaluation['num_episodes']} episodes")
    print(f"saved: {path}")


if __name__ == "__main__":
    main()
