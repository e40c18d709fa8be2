"""Protocols that other servers speak, beside our own."""
