"""What is wrong with a dataset: ``examine`` looks at every scene, one module per kind of check."""
