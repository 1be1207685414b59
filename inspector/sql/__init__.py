"""SQL over the trace, inside the inspector: what asks and what shows are apart, as in the rest of it."""
