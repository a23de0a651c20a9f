"""Plays with an exported policy.onnx: onnxruntime, numpy and gymnasium, nothing of this project.

    python examples/play_onnx.py DIR [EPISODES]

For environments with one Box observation and one Discrete action (CartPole-v1), or one continuous
Box with both bounds (Pendulum-v1). What others look like: docs/export.md.
"""

import json
import sys
from pathlib import Path

import gymnasium
import numpy as np
import onnxruntime

folder, num_episodes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8
about = json.loads((folder / "policy.json").read_text())
session = onnxruntime.InferenceSession(folder / "policy.onnx", providers=["CPUExecutionProvider"])
names = [output["name"] for output in about["outputs"]]
part, *others = about["environment"]["action"]["parts"]
is_gaussian = part["kind"] == "gaussian"
is_playable = None not in part["lows"] + part["highs"] if is_gaussian else len(part["sizes"]) == 1
if others or not is_playable or about["inputs"][0]["name"] != "observation":
    sys.exit(f"{about['env']}: not one Box observation and one Discrete or bounded Box action")
low, high = np.array(part["lows"]), np.array(part["highs"])
environment = gymnasium.make(about["env"])

returns = []
for episode in range(num_episodes):
    # One slot: N is 1. What goes in at the first step of an episode is zeros but for is_first.
    inputs = {
        tensor["name"]: np.zeros([1 if n == "N" else n for n in tensor["shape"]], tensor["dtype"])
        for tensor in about["inputs"]
    }
    observation, _ = environment.reset(seed=episode)
    inputs["is_first"][:] = True
    total, is_over = 0.0, False
    while not is_over:
        inputs["observation"][0] = observation
        outputs = dict(zip(names, map(np.asarray, session.run(names, inputs)), strict=True))
        logits = outputs["policy_logits"][0]
        if is_gaussian:  # the most probable action: means stand first, then log deviations
            action = logits[: len(low)]
            played = np.clip((low + high) / 2 + (high - low) / 2 * action, low, high)
        else:
            action = logits.argmax()
            played = action + part["starts"][0]
        played = np.asarray(played, part["dtype"]).reshape(part["shape"])[()]
        observation, reward, terminated, truncated, _ = environment.step(played)
        for name in about["states"]:
            inputs[name] = outputs[f"next_{name}"]
        if "previous_action" in inputs:
            inputs["previous_action"][:] = action
            inputs["previous_reward"][:] = reward
        inputs["is_first"][:] = False
        total, is_over = total + float(reward), terminated or truncated
    returns.append(total)
print(f"{about['env']}: mean return {np.mean(returns):.1f} of {num_episodes} episodes")
