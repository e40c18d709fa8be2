"""What an endpoint tells of itself."""
