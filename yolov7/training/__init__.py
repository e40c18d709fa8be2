"""Training and evaluation of one epoch, and the state that training updates."""
