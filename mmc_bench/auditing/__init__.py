"""An audit: which planted cues a network picks up, how fast, and which method removes them at what cost."""
