"""Models and weights by name, from the formats that hubs and checkpoints have."""
