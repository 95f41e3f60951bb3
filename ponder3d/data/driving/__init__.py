"""Recordings of drives: lasers and cameras on a moving vehicle."""
