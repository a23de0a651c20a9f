"""The actor: steps environments, builds unrolls, sends them, fetches weights."""
