"""Experiments whose tables and figures are committed in benchmarks/evidence/results; README.md there names them."""
