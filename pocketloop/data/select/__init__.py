"""Between labels and splits: duplicates, decontamination, caps, guards against poisoning, balance."""
