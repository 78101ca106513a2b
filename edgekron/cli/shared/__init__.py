"""Options, output and tables that several commands share."""
