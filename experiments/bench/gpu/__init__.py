"""One script for a day with a GPU: builds, tests and measures there, part by part."""
