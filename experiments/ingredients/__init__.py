"""What experiments share and a config can set: Sacred's ingredients."""
