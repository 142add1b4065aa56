"""Grids of options: `grid` reads a study's cells, `plan` makes stages of them, each once, `running`
runs these by a runner of `runners`, here or on a Ray cluster."""
