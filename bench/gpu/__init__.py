"""The benchmark on a GPU: `python bench/gpu/run.py`."""
