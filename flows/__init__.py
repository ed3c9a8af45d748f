"""What happens in which order: the Prefect flows and the `amopo` command line."""
