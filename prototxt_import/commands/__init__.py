"""The options of the importer's commands, one module a command; nothing here is slow to import."""
