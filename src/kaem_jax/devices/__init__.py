"""Meshes, processes, placement of arrays, compiled programs that are kept."""
