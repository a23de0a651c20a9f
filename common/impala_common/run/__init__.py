"""A run's folder: checkpoints, metrics, event history."""
