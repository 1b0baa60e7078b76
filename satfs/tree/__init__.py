"""The directories and files of a mount: names, attributes, children, and how a file opens."""
