"""What all verbs do with a host: hold it, switch it, drain it, unwind; and the rollout over many hosts."""
