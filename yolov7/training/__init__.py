"""One epoch, and all that it updates."""
