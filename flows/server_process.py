"""Prefect's temporary server in a process that ends with its parent.   Run as: python -m flows.server_process PORT."""

import sys

from amopo_core.stages.command import die_with_parent


def main() -> None:
    """Serve on this machine alone until told to end."""
    die_with_parent()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=True, final=True), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")


if __name__ == "__main__":
    main()
