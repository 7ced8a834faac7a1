"""The loss landscape between two models: paths, BatchNorm statistics, barriers, invariances."""
