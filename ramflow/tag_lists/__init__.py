"""Tag lists in other forms, and changes that keep ids: what `ramflow tags` does."""
