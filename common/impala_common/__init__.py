"""Numerics, nouns and plumbing that the learner server and the actors share."""
