"""How any network is trained: settings and records, what is minimised, a run between two epochs.

This room lies beneath `base_model.py`, whose `BaseModel` has the epoch loop, and above
`datasets.py` and `models/`. Its names are imported from `base_model`.
"""
