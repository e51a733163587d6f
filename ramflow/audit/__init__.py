"""The audit: reads every record, decodes every image, counts every tag, and says what training must skip."""
