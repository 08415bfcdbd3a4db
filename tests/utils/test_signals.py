# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C as a wish that is met between two steps."""

import signal
import threading

import pytest

from cintervene.utils.signals import asked_to_stop


@pytest.fixture(autouse=True)
def _usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_one_is_told_and_the_second_raises():
    with asked_to_stop() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with asked_to_stop() as stopped:
        assert not stopped()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_it_is_ignored_it_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asked_to_stop() as stopped:
        signal.raise_signal(signal.SIGINT)
        assert not stopped()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_are_never_asked():
    told = []

    def work():
        with asked_to_stop() as stopped:
            told.append(stopped())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]
