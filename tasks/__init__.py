"""Prefect tasks, one outside system a module: DVC, git, the inbox, MLflow's tracking and its registry."""
