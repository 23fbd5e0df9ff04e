"""The names that a recipe and the command line choose from. Nothing is loaded for them."""

from typing import Literal

Task = Literal["intent", "function_call", "chat"]
"""What an adapter is taught; an example, a prompt and a score are of one."""

GgufQuantization = Literal["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M"]
"""llama.cpp's names, from the most bits per weight to the fewest."""
