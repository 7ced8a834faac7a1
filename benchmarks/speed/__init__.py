"""How fast the project is, against a plain implementation: ``python -m benchmarks.speed --device cpu``."""
