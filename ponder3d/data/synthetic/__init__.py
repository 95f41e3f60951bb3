"""Generated scenes: seeded, endless, labelled."""
