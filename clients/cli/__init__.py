"""The command line ``dl4all``."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as in services/__init__.py: failures are told by status, in words
