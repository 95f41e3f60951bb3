"""Floor 5: running experiments. The only folder that imports Lightning, and of it only Fabric."""
