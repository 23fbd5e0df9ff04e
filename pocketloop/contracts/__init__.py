"""What flows between the rooms: one record type per boundary."""
