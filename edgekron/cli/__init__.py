"""Commands, one file each. They alone speak to the user; torch and runtimes wait until a command needs them."""
