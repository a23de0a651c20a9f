"""The evaluation service that evaluators use."""
