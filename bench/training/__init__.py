"""Training steps side by side: the published one, TRL's SimPO and the engine, on the same policy and the same pairs."""
