"""What of ONNX is imported, measured: the node tests of onnx, its architectures, and files of exporters."""
