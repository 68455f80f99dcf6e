"""cosify."""
