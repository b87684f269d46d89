"""What a run has shown: sentences, tables, the report page."""
