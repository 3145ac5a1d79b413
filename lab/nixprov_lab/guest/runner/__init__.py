"""A stand-in for gitlab-runner 19.4 on the lab's machines: its protocol, its config.toml, its docker executor."""
