"""Scoring of a set: protocols, runs, and the figures made of them."""
