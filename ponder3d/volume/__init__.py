"""Floor 2: the two doors out of every encoder, and the dense network behind the first."""
