"""Scenes that have been prepared once, to be streamed many times: tar files with an index, and a manifest."""
