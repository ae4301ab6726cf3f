"""Texts: into the input of a file, and its explanation in tokens and words, in numbers and drawn."""
