"""What each directory and file is called, what it holds, and how it opens."""
