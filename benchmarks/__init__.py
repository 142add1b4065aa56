"""How fast this code is on this machine: `speed.py` is the command, each other module some of its
parts. Tables of results are studies, not benchmarks."""
