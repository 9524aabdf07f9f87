"""What users would time, beside the tools that they would use instead. See README.md here; not part of the installed package."""
