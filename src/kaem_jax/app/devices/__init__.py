"""Meshes, processes, placement of arrays, and the cache of compiled programs."""
