"""The page: one self-contained HTML file of all that the stages found."""
