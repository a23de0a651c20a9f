"""Actors and evaluators that impala-train starts on this machine."""
