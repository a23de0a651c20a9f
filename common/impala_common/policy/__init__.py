"""A network as it acts: sampling, inference backends, frozen runs, exported policies."""
