"""What each operator of an ONNX file computes, in torch; one function for each, one file for each kind."""
