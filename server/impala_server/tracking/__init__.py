"""Logs of a run beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow.

Used by the learner's metrics writer, on the controller's thread. A log that fails is left out from
then on; training goes on.
"""
