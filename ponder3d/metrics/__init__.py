"""Floor 3: measures of quality. Functions on tensors, and accumulators that can be summed over ranks."""
