"""One room per deployable service, and the floor they stand on."""

import os

# gRPC reads this when it is imported. Its own lines are plain text on standard error, where ours are JSON; what they say of failed
# connections reaches the log as the status of the call. Set it to INFO or DEBUG to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
