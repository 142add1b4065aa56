"""What studies found: loaded, summarised, drawn and written."""
