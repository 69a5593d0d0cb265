"""Settings of a run: from a YAML file to objects."""
