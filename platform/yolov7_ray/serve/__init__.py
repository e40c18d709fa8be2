"""Registered models behind an HTTP endpoint."""
