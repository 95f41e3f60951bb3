"""Floor 3: the neural SDF renderer. Mathematics as functions on tensors; only the field holds parameters."""
