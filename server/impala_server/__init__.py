"""The learner server: front end, rollout storage, learner, and the commands that run them."""
