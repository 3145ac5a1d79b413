"""Reports of a run for people and machines. Writers get streams from cli; they never open, print or exit."""
