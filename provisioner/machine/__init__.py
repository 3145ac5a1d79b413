"""One host: the reading of its facts, the writing of its files, and the switch of its running system."""
