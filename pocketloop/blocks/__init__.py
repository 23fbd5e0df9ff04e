"""Running blocks of work over many files with datatrove: local processes, or a Ray cluster."""
