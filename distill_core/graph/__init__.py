"""What an ONNX file does for its app: how it is fed, and how much of the answer it works out by itself."""
