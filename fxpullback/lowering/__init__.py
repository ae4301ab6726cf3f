"""The rewrites of the lowering: each turns a form the derivation gives into one that runs faster."""
