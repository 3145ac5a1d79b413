"""What people and machines read of a run. Writers get streams from cli and never open, print or exit by themselves."""
