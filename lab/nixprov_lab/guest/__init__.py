"""What is copied to /opt/lab of the lab's machines; it imports nothing of nixprov."""
