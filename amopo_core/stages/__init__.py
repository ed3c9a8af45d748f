"""One thin command line a DVC stage: paths in, its sections of params.yaml loaded, one call, files out."""
