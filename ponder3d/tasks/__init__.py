"""Floor 4: tasks. Each owns its loss, its prediction and its metric; a new one is one new file."""
