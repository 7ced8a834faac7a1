"""What became of a cue in a model: how well it can be read, what it changes, where the model looks; and one word."""
