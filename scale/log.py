"""How log lines look: for people on a console, as JSON for machines."""

from typing import Any

import structlog

#: What the standard library puts on every record; all else came in `extra` and is shown.
_SHARED = (
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def logging_settings(style: str, level: str, *, colors: bool) -> dict[str, Any]:
    """Return Django's LOGGING; `style` is console or json."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        # The default traceback shows local variables, and with them passwords.
        else structlog.dev.ConsoleRenderer(
            colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    )
    chain = [*_SHARED, structlog.processors.format_exc_info] if style == "json" else [*_SHARED]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    renderer,
                ],
                "foreign_pre_chain": chain,
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "scale": {"level": level},
            "celery": {"level": "WARNING"},
            "uvicorn": {"level": "WARNING"},
        },
    }
