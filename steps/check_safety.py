"""Safety: does the candidate give back what was scrubbed, and does it decline what it should?"""



