"""What went wrong in a run made elsewhere, from whatever its owner still has."""
