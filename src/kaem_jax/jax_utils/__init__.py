"""What JAX lacks: loops in shard_map, placement on meshes, batches of one size, messages of one process."""
