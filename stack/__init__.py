"""The servers that Temper needs beside itself, from wheels, on loopback: for tests, ``make stack`` and benchmarks."""
