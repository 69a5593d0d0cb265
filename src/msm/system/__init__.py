"""What a run computes with and writes to: processes, memory, files, the terminal."""
