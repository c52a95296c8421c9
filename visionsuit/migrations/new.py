"""Write a revision: `python -m visionsuit.migrations.new "what changes"`, from what the tables say now."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

from visionsuit.db import migrate, open_database


def main(message: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{Path(folder) / 'empty.db'}")
        if any((Path(__file__).parent / "versions").glob("*.py")):
            migrate(database)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent))
        count = len(list((Path(__file__).parent / "versions").glob("*.py")))
        with database.connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message=message, autogenerate=True, rev_id=f"{count + 1:04d}")
        database.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
