"""The commands, one file each. Commands alone speak to the user; torch and runtimes are imported when a command needs
them.
"""
