"""What others do instead: pinned, each in an environment of its own, run in the same call as ours."""
