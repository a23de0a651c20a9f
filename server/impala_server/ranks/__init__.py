"""Learner ranks: several learners that make each update together, over torch.distributed."""
