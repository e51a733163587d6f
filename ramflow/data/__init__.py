"""The dataset: upstream's annotations in, tar shards and a manifest out, and reading them back."""
