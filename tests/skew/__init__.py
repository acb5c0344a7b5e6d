"""What released versions wrote, kept as files, and the promise that this version goes on with it."""
