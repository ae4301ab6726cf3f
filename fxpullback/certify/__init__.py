"""The certificate of a compiled graph: against the model, against autograd, and against itself."""
