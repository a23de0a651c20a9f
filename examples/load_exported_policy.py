"""Plays with a policy that `impala-eval RUN --export DIR` wrote, or with a run's folder.

    python examples/load_exported_policy.py DIR [EPISODES] [MODULE:CLASS]

Needs no learner, and works for every environment and policy that can be trained; a network of your
own has to be named. examples/play_onnx.py does without this package and without torch.
"""

import sys

from impala_rl import evaluate, load_policy, make_environment

folder, num_episodes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
trained = load_policy(folder, own_model=sys.argv[3] if len(sys.argv) > 3 else "")
num_slots = min(8, num_episodes)
environment = make_environment(trained.env, num_slots, trained.environment_config)
policy = trained.make_policy(num_slots)
result = evaluate(policy, environment, num_episodes, seed=0, is_greedy=True)
print(f"{trained.env}: mean return {result.return_mean:.1f} of {result.num_episodes} episodes")
environment.close()
