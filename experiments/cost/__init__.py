"""What rows take: work, time and memory, before they are run."""
