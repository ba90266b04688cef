"""A run as values: its context, its stages one after the other, its record; and what is tried or planned before it."""
