"""Grids of options: planned, and run here or on a Ray cluster."""
