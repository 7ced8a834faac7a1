"""The built-in plugins: one folder each, registered by entry points like any other plugin."""
