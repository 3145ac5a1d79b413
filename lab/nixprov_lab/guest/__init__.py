"""The programs that are copied to /opt/lab of the lab's machines; they import nothing of nixprov."""
