"""Formats that are tables or records: rows that name or hold their image."""
