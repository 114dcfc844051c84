"""Encoders as files for other programs: torch.export (.pt2) and ONNX (.onnx), each held against the encoder before it gets its name."""
