"""Floor 3: datasets, transforms and the loader. A new dataset is one new file here."""
