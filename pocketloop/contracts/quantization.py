"""The names of quantizations; the command line lists them, so nothing is loaded for them."""

from typing import Literal

GgufQuantization = Literal["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M"]
"""llama.cpp's names, from the most bits per weight to the fewest."""
