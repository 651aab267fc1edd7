"""Where a run is stored: its folder and MongoDB, without credentials."""
