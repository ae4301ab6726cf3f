"""Benchmarks of models of text."""
