"""Tag descriptions and captions through a frozen text encoder, and the proof that rows belong to their tags."""
