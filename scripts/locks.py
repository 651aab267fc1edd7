"""Files and folders that one command at a time may use."""

import fcntl


def lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed here and in child processes; False when another process has it.

    Some shared file systems have no locks and are trusted.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
