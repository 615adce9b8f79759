"""Benchmarks, load tests and cost estimates."""
