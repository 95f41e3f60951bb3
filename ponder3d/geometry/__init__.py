"""Floor 1: pure geometric functions on tensors. Each states its convention; the page of all is ``docs/conventions.md``."""
