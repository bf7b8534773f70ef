"""Runtimes: the same commands carried out in threads or by Ray actors."""
