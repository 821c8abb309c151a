"""Networks as files of other runtimes: ONNX, OpenVINO and torch.export, written with a parity check, and read back."""
