"""Networks as files of other runtimes (ONNX, OpenVINO, torch.export): written with a parity check, and loaded again."""
