"""The web page to try an endpoint, and the one that documents its API."""
