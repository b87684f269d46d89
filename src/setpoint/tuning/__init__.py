"""Finding the temperature: prior, search and verdict."""
