"""Floor 6: pages with pictures, self-contained and readable offline. Reads what runs left on disk."""
