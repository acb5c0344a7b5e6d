"""`ottoscaler serve`: the scaler itself. SIGTERM drains it; a second signal ends it now."""

import argparse

from ottoscaler.cli.flags import add_setting_flags, settings_from
from ottoscaler.errors import SettingsError
from ottoscaler.settings import FIELDS
from ottoscaler.termination_log import write_termination_log

HANDLES_SIGNALS = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting."""
    parser.usage = "ottoscaler serve [--help] [--SETTING VALUE]..."
    add_setting_flags(parser, FIELDS)


def run(args: argparse.Namespace) -> int:
    """Check the settings, begin to log, and run the service to its end."""
    try:
        settings = settings_from(args)
    except SettingsError as error:
        write_termination_log(str(error))
        raise
    from ottoscaler.log import start_logging
    from ottoscaler.service import run as run_service

    start_logging(settings.log_level, settings.log_format)
    return run_service(settings)
