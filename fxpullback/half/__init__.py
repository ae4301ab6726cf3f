"""Half precision: casts put into the lowered graph, and the scale of its cotangents."""
