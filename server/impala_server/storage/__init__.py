"""Rollout storage in shared memory: written by the front end, read by the learner."""
