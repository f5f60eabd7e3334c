"""Files: written as a whole or not at all, and models in one file."""
