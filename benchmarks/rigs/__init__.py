"""Parts of the product alone, and stand-ins for the rest, that sections measure with."""
