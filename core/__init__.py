"""What knows nothing of this bench: the console, registries, files, processes."""
