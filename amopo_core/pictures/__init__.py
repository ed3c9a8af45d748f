"""Pictures of a run, each the same bytes for the same numbers."""
