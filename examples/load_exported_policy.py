"""Plays with what `impala-eval RUN --export DIR` wrote: no learner, no run's folder, no server.

    python examples/load_exported_policy.py DIR [EPISODES] [MODULE:CLASS]

Works for every environment and policy that can be trained; a network of one's own has to be named.
Needs impala_actor, torch and the environment; examples/play_onnx.py does without the first two.
"""

import sys

from impala_actor.environments.factory import make_environment
from impala_actor.evaluation.policy_evaluation import evaluate
from impala_common.policy.exported_policy import load_exported_policy

folder, num_episodes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
exported = load_exported_policy(folder, own_model=sys.argv[3] if len(sys.argv) > 3 else "")
num_slots = min(8, num_episodes)
environment = make_environment(exported.env, num_slots, exported.environment_config)
policy = exported.make_policy(num_slots)
result = evaluate(policy, environment, num_episodes, seed=0, is_greedy=True)
print(f"{exported.env}: mean return {result.return_mean:.1f} of {result.num_episodes} episodes")
environment.close()
