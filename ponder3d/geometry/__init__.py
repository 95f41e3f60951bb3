"""Floor 1: pure geometric functions on tensors. Each states its convention; all of them: ``docs/conventions.md``."""
