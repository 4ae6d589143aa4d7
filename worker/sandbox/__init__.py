"""What holds a child in: Landlock, seccomp, rlimits, no capabilities; docs/adr/0016. Linux only, by ctypes alone."""
