"""Commands, one file each. They alone speak to the user; imports of torch and runtimes wait until a command needs them."""
