"""Measurements on shapes of real size. `python -m experiments.bench` prints `name value unit` and writes JSON."""
