"""The built-in plugins: one folder each, registered by entry points like anybody's."""
