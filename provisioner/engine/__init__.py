"""The parts that all verbs share: holding, switching, draining and unwinding a host, and the rollout over many."""
