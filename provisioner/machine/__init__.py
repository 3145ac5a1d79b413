"""What happens on a host: what is read there, what is written, and the one switch of its running system."""
