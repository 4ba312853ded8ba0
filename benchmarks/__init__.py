"""The benchmarks: one bench_<stem>.py per op; `pytest --benchmark-only` runs them."""
