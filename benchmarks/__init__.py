"""One script per claim: `python -m benchmarks.<claim> [--quick] [--data-dir DIR]`."""
