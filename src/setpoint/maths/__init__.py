"""Pure functions of tensors: tempering, divergences, solving, reducing, statistics."""
