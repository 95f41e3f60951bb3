"""Floor 3: encoders. Each takes a Batch and returns Points, a SparseTensor or a Volume; a new one is one new file."""
