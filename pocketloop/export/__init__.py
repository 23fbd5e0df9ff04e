"""From an adapter to the files that a phone runs, and the proof that they behave alike."""
