"""What every part stands on: files, processes, YAML."""
