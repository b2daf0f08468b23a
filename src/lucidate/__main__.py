"""`lucidate` and `python -m lucidate`: what starts before the command's own modules are loaded."""

import signal
import sys


def main() -> None:
    """Run the command; an interrupt while modules load, which takes a moment, ends as any other does."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        from lucidate.cli.main import main as command

        command()
    except (Exception, KeyboardInterrupt):
        # A compiled module that is interrupted while it loads ends in an ImportError of its own.
        if not interrupted:
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
