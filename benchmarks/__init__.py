"""What the library costs, each figure beside its floor from the same run: `python -m benchmarks`."""
