"""Prints the include folder of the Python package nvidia-cudnn-frontend, or nothing."""

import importlib.metadata

try:
    files = importlib.metadata.files("nvidia-cudnn-frontend") or []
except importlib.metadata.PackageNotFoundError:
    files = []
for file in files:
    if file.name == "cudnn_frontend.h":
        print(file.locate().resolve().parent)
        break
