"""An ONNX file as a module of torch, which `capture` takes as any other: the front end for files without source."""
