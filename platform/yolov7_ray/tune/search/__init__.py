"""Algorithms of a search: which trial goes on, and which values are tried next."""
