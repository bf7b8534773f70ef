"""Stops, each in a process of its own: whatever a signal meets, the exit code is 128 and its number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMAND = """
import signal, sys, time, types
import hierfl.__main__
from hierfl.stops import Stopped, heard, unbroken

def stop(number=signal.SIGINT):
    signal.raise_signal(number)

def work():
{work}

sys.modules["hierfl.cli"] = types.SimpleNamespace(main=work)  # the real one takes longer than all the rest
hierfl.__main__.main()
"""


def command(work: str, *words: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
    """Run `work` in the place of the command line."""
    code = prefix + COMMAND.format(work=textwrap.indent(textwrap.dedent(work), "    "))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_exit_code_is_the_signals(name: str) -> None:
    ran = command(f"stop(signal.{name})")
    assert (ran.returncode, ran.stderr) == (128 + getattr(signal, name), "\nstopped\n")


def test_a_stop_before_the_command_line_is_there_answers_machines_too() -> None:
    ran = command("stop(signal.SIGTERM)", "--json")
    assert ran.returncode == 143
    assert '"message": "stopped by SIGTERM"' in ran.stdout


def test_a_command_that_was_not_stopped_ends_as_it_ends() -> None:
    assert command("sys.exit(7)").returncode == 7
    assert command("pass").returncode == 0
    broken = command("raise ZeroDivisionError('ours')")
    assert broken.returncode == 1 and "ZeroDivisionError: ours" in broken.stderr


def test_a_stop_that_meets_generated_code_has_the_same_code() -> None:
    """Python ends by the signal itself where a KeyboardInterrupt leaves exec("...")."""
    assert command('exec("stop()")').returncode == 130


def test_a_stop_that_becomes_another_error_keeps_its_code() -> None:
    for turned in ("KeyboardInterrupt", "SystemExit(15)", "RuntimeError('Ray has ended')"):
        ran = command(f"try: stop(signal.SIGTERM)\nexcept KeyboardInterrupt: raise {turned} from None")
        assert ran.returncode == 143, turned


def test_who_leaves_in_its_own_time_has_the_code_too_unless_it_was_done() -> None:
    leaves = """
        from hierfl.console import told
        from hierfl.stops import leaving
        with told(False, False), leaving() as asked:
            stop(signal.SIGTERM)
            assert asked.is_set()
            {then}
    """
    left = command(leaves.format(then="asked.end()"))
    assert (left.returncode, left.stderr) == (143, "\nstopped\n")
    assert command(leaves.format(then="stop(signal.SIGTERM)")).returncode == 143, "at once"
    assert command(leaves.format(then="print('the federation has ended')")).returncode == 0


def test_the_command_tells_a_stop_whatever_it_has_become() -> None:
    for turned in ("KeyboardInterrupt", "BrokenPipeError", "RoundFailed('Ray has ended')"):
        ran = command(f"""
            from hierfl.console import told
            from hierfl.errors import RoundFailed
            with told(False, False):
                try: stop(signal.SIGTERM)
                except KeyboardInterrupt: raise {turned} from None
        """)
        assert ran.returncode == 143 and ran.stderr.endswith("stopped\n"), ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_stop_that_a_finalizer_swallows_comes_again() -> None:
    ran = command("""
        class Last:
            def __del__(self): stop()
        last = Last()
        del last
        time.sleep(30)
    """)
    assert (ran.returncode, ran.stderr) == (130, "\nstopped\n")


def test_other_errors_of_a_finalizer_are_shown_as_ever() -> None:
    ran = command("""
        class Last:
            def __del__(self): raise ValueError('mine')
        last = Last()
        del last
    """)
    assert ran.returncode == 0 and "ValueError: mine" in ran.stderr


def test_a_stop_is_put_off_until_the_end_of_what_is_unbroken() -> None:
    ran = command("""
        with unbroken():
            stop(signal.SIGTERM)
            print('whole', flush=True)
        print('never', flush=True)
    """)
    assert (ran.returncode, ran.stdout) == (143, "whole\n")


def test_while_a_stopped_command_ends_a_second_stop_at_once_is_the_same_and_a_later_one_cuts_short() -> None:
    ran = command("""
        try:
            stop()
        finally:
            stop(), stop(signal.SIGTERM)
            print('goes on', flush=True)
            heard()._raised_s -= 60
            with unbroken(): stop()
            stop(signal.SIGTERM)
            print('and on', flush=True)
            stop()
            print('never', flush=True)
    """)
    assert (ran.returncode, ran.stdout) == (130, "goes on\nand on\n")


def test_a_thread_that_goes_on_does_not_keep_a_stopped_command() -> None:
    ran = command("import threading; threading.Thread(target=time.sleep, args=(600,)).start(); stop()")
    assert ran.returncode == 130


def test_a_signal_that_was_ignored_when_the_command_began_stays_so() -> None:
    ran = command("stop()", prefix="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    assert ran.returncode == 0


def test_what_comes_after_the_end_changes_nothing() -> None:
    ran = command("import atexit; atexit.register(stop)")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_library_keeps_its_users_handler() -> None:
    code = """
import signal
from hierfl.stops import heard, unbroken
try:
    with unbroken(): signal.raise_signal(signal.SIGINT); print('whole')
except KeyboardInterrupt: print(type(signal.getsignal(signal.SIGINT)).__name__, heard().exit_code)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert ran.stdout == "whole\nbuiltin_function_or_method 130\n"


@pytest.mark.parametrize("is_swallowed", [True, False])
def test_a_stop_that_was_swallowed_is_raised_anew_and_no_other(is_swallowed: bool) -> None:
    ran = command(
        f"""
        import contextlib, threading
        from hierfl.stops import recur
        recur()
        with contextlib.suppress(BaseException):
            {"stop()" if is_swallowed else "raise KeyboardInterrupt"}
        threading.Thread(target=recur).start()
        print("goes on", flush=True)
        recur()
        print("to its end")
        """
    )
    assert ran.returncode == (130 if is_swallowed else 0), ran.stderr
    assert ran.stdout.split("\n")[:2] == ["goes on", "" if is_swallowed else "to its end"]
    assert "Traceback" not in ran.stderr
