"""The options of the commands of pspnet, one module a command; nothing here is slow to import."""
