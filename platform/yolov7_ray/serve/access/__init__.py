"""Who may ask an endpoint, and what is written of it."""
