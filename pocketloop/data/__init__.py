"""From events and example files to an immutable dataset release."""
