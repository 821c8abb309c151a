"""Every network and runtime side by side on the user's own machine: time, memory, and the share of what it can do."""
