"""Between the original files and our networks."""
