"""One folder per deployable service, and `common`, which they share."""

import os

# gRPC reads this when it is imported. Its own lines are plain text on standard error, where ours are JSON. A failed connection reaches the log as
# the status of the call. Set it to INFO or DEBUG to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
