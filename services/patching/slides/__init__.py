"""Whole slides: images too large for memory, read tile by tile and never whole."""
