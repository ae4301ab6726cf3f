"""Completeness: what the input, the constants and the gates of a network each add to the logit."""
