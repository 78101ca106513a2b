"""Pages that show a compression, made from numbers that were measured in the same run."""
