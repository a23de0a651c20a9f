"""The learner service that actors use: registration, unrolls, weights."""
