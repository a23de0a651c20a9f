"""Acting with a network: sampling, inference backends, frozen runs, exported policies."""
