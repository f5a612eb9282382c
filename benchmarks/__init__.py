"""Speed of crashsim, measured: `python -m benchmarks`. Needs the development dependencies."""
