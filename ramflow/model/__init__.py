"""RAM++: image encoder, description re-weighting, tagging head and losses (arXiv 2310.15200)."""
