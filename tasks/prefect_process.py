"""Prefect's server in this process.   Run as: python -m tasks.prefect_process PORT [--temporary]."""

import sys

GRACEFUL = 5
"""Time that open connections are given when the server ends [seconds]."""


def main() -> None:
    """Serve on this machine alone until told to end; a temporary server has neither pages nor schedules."""
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(
        create_app(ephemeral="--temporary" in sys.argv[2:], final=True),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        timeout_graceful_shutdown=GRACEFUL,
    )


if __name__ == "__main__":
    main()
