"""Dispatch policies: which device runs which work next. One file each."""
