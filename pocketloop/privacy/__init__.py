"""Finding personal data, replacing it consistently, and proving that it is gone."""
