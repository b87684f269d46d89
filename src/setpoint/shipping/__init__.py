"""The student in production: exported, asked, served, measured, kept fresh."""
