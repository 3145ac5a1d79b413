#!/opt/lab/bin/python3
"""Starts the lab's stand-in for gitlab-runner; the package `runner` lies beside this file.

It is no gitlab-runner: `--version` prints 19.4.0-nixprov-lab. It imitates gitlab-runner 19.4 towards GitLab, the Docker
Engine API and in the job's log. It refuses missing features by name. Standard library only.
"""  # noqa: N999 (the program's name, not a module's)

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.exit(importlib.import_module("runner.cli").main(sys.argv))
